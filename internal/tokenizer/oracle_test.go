package tokenizer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

// row is all that Hugging Face says about one text.
type row struct {
	IDs        []int32  `json:"ids"`
	Types      []int    `json:"types"`
	Tokens     []string `json:"tokens"`
	Offsets    [][]int  `json:"offsets"`
	Mask       []int    `json:"mask"`
	Decoded    string   `json:"decoded"`
	DecodedAll string   `json:"decoded_all"`
}

func (a oracleAnswer) row(i int) row {
	return row{a.IDs[i], a.Types[i], a.Tokens[i], a.Offsets[i], a.Mask[i], a.Decoded[i], a.DecodedAll[i]}
}

// answered is what we say about it. Offsets in bytes that do not mean the same as those in characters spoil it.
func answered(tok *Tokenizer, text string, e *Encoding) row {
	at := runeIndex(text)
	for i, b := range e.Offsets {
		if c := e.CharOffsets[i]; at[b[0]] != c[0] || at[b[1]] != c[1] {
			return row{Decoded: fmt.Sprintf("token %d: bytes %v are not characters %v", i, b, c)}
		}
	}
	ids := ints(e.Ids)
	return row{ids, e.TypeIds, e.Tokens, e.CharOffsets, e.SpecialTokenMask, tok.Decode(ids, true), tok.Decode(ids, false)}
}

func ints(list []int) []int32 {
	out := make([]int32, 0, len(list))
	for _, n := range list {
		out = append(out, int32(n))
	}
	return out
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
	main   bool // one that the SMS messages are compared with
	base   func(testing.TB) string
	change func(file map[string]any)
}

var variants = []variant{
	{"uncased", true, minilm, nil},
	{"cased", true, minilm, func(f map[string]any) { at(f, "normalizer")["lowercase"] = false }},
	{"uncased with accents", false, minilm, func(f map[string]any) { at(f, "normalizer")["strip_accents"] = false }},
	{"cased without accents", false, minilm, func(f map[string]any) {
		at(f, "normalizer")["lowercase"], at(f, "normalizer")["strip_accents"] = false, true
	}},
	{"control characters and joined CJK", false, minilm, func(f map[string]any) {
		at(f, "normalizer")["clean_text"], at(f, "normalizer")["handle_chinese_chars"] = false, false
		at(f, "model")["max_input_chars_per_word"] = 7
	}},
	{"RoBERTa", true, roberta, nil},
	{"RoBERTa with a space before", false, roberta, func(f map[string]any) {
		at(f, "pre_tokenizer")["add_prefix_space"], at(f, "post_processor")["add_prefix_space"] = true, true
	}},
	{"GPT-2", false, roberta, func(f map[string]any) {
		f["post_processor"] = map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false}
	}},
	{"no regular expression, ignore_merges", false, roberta, func(f map[string]any) {
		at(f, "pre_tokenizer")["use_regex"], at(f, "model")["ignore_merges"] = false, true
		f["post_processor"] = map[string]any{"type": "Sequence", "processors": []any{f["post_processor"]}}
	}},
}

// at is an object in the file.
func at(file map[string]any, key string) map[string]any {
	o, _ := file[key].(map[string]any)
	return o
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
		if !v.main {
			continue
		}
		t.Run(v.name, func(t *testing.T) {
			texts := smsTexts(t)
			path := v.path(t)
			o, tok := startOracle(t), load(t, path)
			compare(t, o, tok, path, texts, 128)
			compare(t, o, tok, path, texts[:len(texts)/10], 0)
			compare(t, o, tok, path, texts[:len(texts)/10], 16)
			t.Logf("%d messages", len(texts))
		})
	}
}

// TestOracleRandom compares texts drawn afresh: DURATUNE_TOKENIZER_TEXTS of them (default 1,000), from the seed
// DURATUNE_TOKENIZER_SEED (default: the time).
func TestOracleRandom(t *testing.T) {
	const batch = 1000
	count, seed := envInt(t, "DURATUNE_TOKENIZER_TEXTS", 1000), envInt(t, "DURATUNE_TOKENIZER_SEED", int(time.Now().UnixNano()))
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
				comparePairs(t, o, tok, path, texts[:len(texts)/10+1], maxLength)
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
	const most = 3 // differences shown
	want := o.ask(t, oracleRequest{Tokenizer: path, MaxLength: maxLength, Texts: texts, Details: true})
	bad := 0
	for i, text := range texts {
		ids := tok.AppendIDs(nil, text, maxLength)
		tokens += len(ids)
		diff := cmp.Diff(want.row(i), answered(tok, text, tok.Encode(text, maxLength)))
		if diff == "" && slices.Equal(ids, want.IDs[i]) {
			continue
		}
		if bad++; bad <= most {
			t.Errorf("%+.300q, %d\n AppendIDs %v\n want      %v\n Encode (-want +got) %.2000s", text, maxLength, ids, want.IDs[i], diff)
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d texts differ", bad, len(texts))
	}
	return tokens
}

// comparePairs does the same for neighbours of the texts.
func comparePairs(t *testing.T, o *oracle, tok *Tokenizer, path string, texts []string, maxLength int) {
	t.Helper()
	if maxLength > 0 {
		maxLength = max(maxLength, 5) // one that does not hold RoBERTa's four special tokens wraps around in Hugging Face
	}
	pairs := append(slices.Clone(texts[1:]), texts[0])
	want := o.ask(t, oracleRequest{Tokenizer: path, MaxLength: maxLength, Texts: texts, Pairs: pairs, Details: true})
	for i, text := range texts {
		e := tok.EncodePair(text, pairs[i], maxLength)
		got := row{IDs: ints(e.Ids), Types: e.TypeIds, Tokens: e.Tokens, Offsets: e.CharOffsets, Mask: e.SpecialTokenMask}
		w := want.row(i)
		w.Decoded, w.DecodedAll = "", ""
		if diff := cmp.Diff(w, got); diff != "" {
			t.Fatalf("EncodePair(%+.300q, %+.300q, %d) (-want +got) %.2000s", text, pairs[i], maxLength, diff)
		}
		checkPair(t, tok, text, pairs[i], maxLength, w.IDs, w.Types)
	}
}
