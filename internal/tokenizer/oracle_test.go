package tokenizer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

// oracle is Hugging Face tokenizers in a process of its own.
type oracle struct {
	stdin  io.Writer
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// oracleRequest and oracleAnswer are a line to internal/py/tokenizer/oracle.py and a line from it.
type oracleRequest struct {
	Tokenizer string   `json:"tokenizer"`
	MaxLength int      `json:"max_length"`
	Texts     []string `json:"texts"`
	Pairs     []string `json:"pairs,omitempty"`
	Details   bool     `json:"details"`
}

type oracleAnswer struct {
	IDs        [][]int32  `json:"ids"`
	Types      [][]int    `json:"types"`
	Tokens     [][]string `json:"tokens"`
	Offsets    [][][]int  `json:"offsets"`
	Mask       [][]int    `json:"mask"`
	Decoded    []string   `json:"decoded"`
	DecodedAll []string   `json:"decoded_all"`
}

func startOracle(t *testing.T) *oracle {
	t.Helper()
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("peers: DURATUNE_PEERS is not set; internal/py/peers/setup.sh prints it")
	}
	o := &oracle{}
	cmd := exec.CommandContext(t.Context(), python, "../py/tokenizer/oracle.py")
	cmd.Stderr = &o.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stdin.Close(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed by the context if it does not end by itself
	})
	o.stdin, o.stdout = stdin, bufio.NewReader(stdout)
	return o
}

func (o *oracle) ask(t *testing.T, r oracleRequest) (a oracleAnswer) {
	t.Helper()
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.stdin.Write(append(line, '\n')); err != nil {
		t.Fatalf("%v\n%s", err, o.stderr.String())
	}
	line, err = o.stdout.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, o.stderr.String())
	}
	return a
}

// variant is a tokenizer.json that differs from a real one in some values.
type variant struct {
	name   string
	base   func(testing.TB) string
	change func(file map[string]any)
}

var variants = []variant{
	{"uncased", minilm, nil},
	{"cased", minilm, func(f map[string]any) { f["normalizer"].(map[string]any)["lowercase"] = false }},
	{"RoBERTa", roberta, nil},
}

// path writes the variant's file.
func (v variant) path(t *testing.T) string {
	t.Helper()
	base := v.base(t)
	if v.change == nil {
		return base
	}
	var file map[string]any
	readJSON(t, base, &file)
	v.change(file)
	data, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tokenizer.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOracleSMS compares every message of the SMS Spam Collection.
func TestOracleSMS(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			texts := smsTexts(t)
			path := v.path(t)
			o, tok := startOracle(t), load(t, path)
			for _, maxLength := range []int{0, 128, 16} {
				compare(t, o, tok, path, texts, maxLength)
			}
			t.Logf("%d messages", len(texts))
		})
	}
}

// TestOracleRandom compares texts drawn afresh: DURATUNE_TOKENIZER_TEXTS of them (default 5,000), from the seed
// DURATUNE_TOKENIZER_SEED (default: the time).
func TestOracleRandom(t *testing.T) {
	const batch = 1000
	count, seed := envInt(t, "DURATUNE_TOKENIZER_TEXTS", 5000), envInt(t, "DURATUNE_TOKENIZER_SEED", int(time.Now().UnixNano()))
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			path := v.path(t)
			o, tok := startOracle(t), load(t, path)
			t.Logf("%d texts, DURATUNE_TOKENIZER_SEED=%d", count, seed)
			d := newDrawer(rand.New(rand.NewPCG(uint64(seed), 0)), tok)
			pieces := 0
			for done := 0; done < count && !t.Failed(); done += batch {
				texts := make([]string, min(batch, count-done))
				for i := range texts {
					texts[i] = d.text()
				}
				maxLength := []int{0, 0, 128, 32, 5, 2}[d.IntN(6)]
				pieces += compare(t, o, tok, path, texts, maxLength)
			}
			t.Logf("%d tokens", pieces)
		})
	}
}

func envInt(t *testing.T, name string, fallback int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return fallback
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// compare returns the number of tokens.
func compare(t *testing.T, o *oracle, tok *Tokenizer, path string, texts []string, maxLength int) (tokens int) {
	t.Helper()
	const most = 5 // differences shown
	want := o.ask(t, oracleRequest{Tokenizer: path, MaxLength: maxLength, Texts: texts})
	bad := 0
	for i, text := range texts {
		got := tok.AppendIDs(nil, text, maxLength)
		tokens += len(got)
		if !slices.Equal(got, want.IDs[i]) {
			if bad++; bad <= most {
				t.Errorf("AppendIDs(%+.300q, %d)\n got %v\nwant %v", text, maxLength, got, want.IDs[i])
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d texts differ", bad, len(texts))
	}
	return tokens
}
