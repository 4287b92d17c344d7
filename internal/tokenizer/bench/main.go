// Command bench races AppendIDs against Hugging Face's encode_batch_fast on the SMS Spam Collection, both sides in turn in
// one run, and prints a line of JSON a case: the speed of both and how many times the peer's ours is.
//
//	DURATUNE_PEERS=$(internal/py/peers/setup.sh) go run ./internal/tokenizer/bench
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/duratune/duratune/internal/tokenizer"
)

const maxLength = 128

// result is what is printed of a case.
type result struct {
	Case  string  `json:"case"`
	Ours  float64 `json:"ours"`
	Peer  float64 `json:"peer"`
	Ratio float64 `json:"ratio"`
	Unit  string  `json:"unit"`
}

// race is one case.
type race struct {
	name, path string
	texts      []string
	threads    int
	rounds     int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	wordPiece := flags.String("wordpiece", filepath.Join(cache, "duratune/assets/all-minilm-l6-v2/tokenizer.json"), "tokenizer.json with WordPiece")
	bpe := flags.String("bpe", "../shared/data/tokenizer/roberta_tokenizer.json", "tokenizer.json with byte-level BPE")
	file := flags.String("texts", "../shared/data/sms_spam/SMSSpamCollection", "lines of a label, a tab and a text")
	rounds := flags.Int("rounds", 7, "rounds of each case, the fastest of which counts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	texts, err := readTexts(*file)
	if err != nil {
		return err
	}
	threads := []int{1}
	if n := runtime.GOMAXPROCS(0); n > 1 {
		threads = append(threads, n)
	}
	for _, n := range threads {
		for _, r := range []race{{"WordPiece", *wordPiece, texts, n, *rounds}, {"byte-level BPE", *bpe, texts, n, *rounds}} {
			res, err := r.run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			if err := json.NewEncoder(out).Encode(res); err != nil {
				return err
			}
		}
	}
	return nil
}

func readTexts(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var texts []string
	for line := range strings.Lines(string(data)) {
		_, text, _ := strings.Cut(strings.TrimRight(line, "\r\n"), "\t")
		texts = append(texts, text)
	}
	return texts, nil
}

// run lets both sides encode in turn; the fastest round of each counts, since others on the machine only ever slow.
func (r race) run(ctx context.Context) (result, error) {
	tok, err := tokenizer.Load(r.path)
	if err != nil {
		return result{}, err
	}
	p, err := startPeer(ctx, r)
	if err != nil {
		return result{}, err
	}
	defer p.stop()
	if tokens := r.encode(tok); tokens != p.tokens {
		return result{}, fmt.Errorf("got %d tokens, the peer has %d", tokens, p.tokens)
	}
	ours, peer := math.Inf(1), math.Inf(1)
	for range r.rounds {
		t, err := p.encode()
		if err != nil {
			return result{}, err
		}
		peer = min(peer, r.of(t))
		for start := time.Now(); time.Since(start).Seconds() < t.Wall; {
			ours = min(ours, r.pass(tok))
		}
	}
	unit := "texts a second of processor time"
	if r.threads > 1 {
		unit = "texts a second"
	}
	name := fmt.Sprintf("%s, %d SMS messages, %d thread(s), tokenizers %s", r.name, len(r.texts), r.threads, p.version)
	n := float64(len(r.texts))
	return result{name, math.Round(n / ours), math.Round(n / peer), math.Round(10*peer/ours) / 10, unit}, nil
}

// took is the seconds that all texts took: on the clock, and of the processor.
type took struct {
	Wall float64 `json:"wall"`
	CPU  float64 `json:"cpu"`
}

// of is the time that counts: of one thread the processor's, which a busy machine does not spoil.
func (r race) of(t took) float64 {
	if r.threads == 1 {
		return t.CPU
	}
	return t.Wall
}

// pass encodes all texts once and returns the time that counts.
func (r race) pass(tok *tokenizer.Tokenizer) float64 {
	start, before := time.Now(), processorTime()
	r.encode(tok)
	return r.of(took{time.Since(start).Seconds(), processorTime() - before})
}

// processorTime is what this process has used, in seconds.
func processorTime() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return math.NaN()
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// encode encodes all texts once, a share a thread.
func (r race) encode(tok *tokenizer.Tokenizer) (tokens int) {
	counts := make([]int, r.threads)
	var wg sync.WaitGroup
	for i := range r.threads {
		share := r.texts[i*len(r.texts)/r.threads : (i+1)*len(r.texts)/r.threads]
		wg.Go(func() {
			var ids []int32
			for _, text := range share {
				ids = tok.AppendIDs(ids[:0], text, maxLength)
				counts[i] += len(ids)
			}
		})
	}
	wg.Wait()
	for _, n := range counts {
		tokens += n
	}
	return tokens
}

// peer is internal/py/tokenizer/bench.py.
type peer struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stdout  *bufio.Reader
	stderr  bytes.Buffer
	tokens  int
	version string
}

func startPeer(ctx context.Context, r race) (*peer, error) {
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		return nil, fmt.Errorf("DURATUNE_PEERS is not set: internal/py/peers/setup.sh prints it")
	}
	p := &peer{cmd: exec.CommandContext(ctx, python, "internal/py/tokenizer/bench.py")}
	p.cmd.Stderr = &p.stderr
	p.cmd.Env = append(os.Environ(), "RAYON_NUM_THREADS="+strconv.Itoa(r.threads),
		"TOKENIZERS_PARALLELISM="+strconv.FormatBool(r.threads > 1))
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.stdout = bufio.NewReader(stdout)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	var about struct {
		Tokens  int    `json:"tokens"`
		Version string `json:"version"`
	}
	err = p.ask(map[string]any{"tokenizer": r.path, "max_length": maxLength, "texts": r.texts}, &about)
	if err != nil {
		p.stop()
		return nil, err
	}
	p.tokens, p.version = about.Tokens, about.Version
	return p, nil
}

func (p *peer) encode() (t took, err error) {
	err = p.ask(true, &t)
	return t, err
}

func (p *peer) ask(request, answer any) error {
	line, err := json.Marshal(request)
	if err == nil {
		_, err = p.stdin.Write(append(line, '\n'))
	}
	if err == nil {
		line, err = p.stdout.ReadBytes('\n')
	}
	if err == nil {
		err = json.Unmarshal(line, answer)
	}
	if err != nil {
		return fmt.Errorf("bench.py: %w\n%s", err, p.stderr.String())
	}
	return nil
}

// stop ends the peer, which reads to the end of its input.
func (p *peer) stop() {
	_ = p.stdin.Close()
	_ = p.cmd.Wait()
}
