package hub_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"github.com/duratune/duratune/internal/hub/hubtest"
)

// smsFile is the SMS Spam Collection, which the project does not ship.
const smsFile = "../../../shared/data/sms_spam/SMSSpamCollection"

// peerAnswer is what internal/py/hub_check.py prints.
type peerAnswer struct {
	Listing     map[string]string `json:"listing"`
	Commit      string            `json:"commit"`
	Model       map[string]string `json:"model"` // path -> sha256
	ModelCommit string            `json:"model_commit"`
	Parameters  int64             `json:"parameters"`
	IDs         []int             `json:"ids"`
	Columns     []string          `json:"columns"`
	Labels      []string          `json:"labels"`
	Rows        int               `json:"rows"`
	RowsSHA256  string            `json:"rows_sha256"`
}

// TestPeer has Hugging Face's own libraries and this package read the same server: hubtest is a hub for them, and both
// get the same bytes.
func TestPeer(t *testing.T) {
	python := os.Getenv("DURATUNE_PEERS")
	if python == "" {
		t.Skip("DURATUNE_PEERS is not set: internal/py/peers/setup.sh prints it")
	}
	if _, err := os.Stat(smsFile); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("shared: %s not found", smsFile)
	}
	f := newFixture(t)
	if err := hubtest.WriteSMSSpam(f.root, smsFile); err != nil {
		t.Fatal(err)
	}
	if err := hubtest.WriteDistilBERT(f.root, tinyTokenizer(t), hubtest.TinySize, 1); err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(t.Context(), python, "../py/hub_check.py", t.TempDir(), hubtest.DistilBERT, hubtest.SMSSpam)
	cmd.Env = append(os.Environ(), "HF_ENDPOINT="+f.URL, "HF_HUB_OFFLINE=0", "HF_TOKEN="+testToken)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var peer peerAnswer
	if err := json.Unmarshal(stdout, &peer); err != nil {
		t.Fatal(err)
	}
	comparePeerModel(t, f, peer)
	comparePeerRows(t, f, peer)
}

func comparePeerModel(t *testing.T, f *fixture, peer peerAnswer) {
	t.Helper()
	dir, commit, err := f.client.Model(t.Context(), "hf://"+hubtest.DistilBERT, "main", nil)
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]string{}
	for name, content := range read(t, dir) {
		sum := sha256.Sum256([]byte(content))
		ours[name] = hex.EncodeToString(sum[:])
	}
	if diff := cmp.Diff(peer.Model, ours); diff != "" {
		t.Errorf("files (-huggingface_hub +ours):\n%s", diff)
	}
	if commit != peer.Commit || commit != peer.ModelCommit {
		t.Errorf("commit %s, huggingface_hub has %s and %s", commit, peer.Commit, peer.ModelCommit)
	}
	if len(peer.Listing) != len(peer.Model) {
		t.Errorf("listed %d files, downloaded %d", len(peer.Listing), len(peer.Model))
	}
	if peer.Parameters == 0 || len(peer.IDs) == 0 {
		t.Errorf("transformers loaded %d parameters, and the tokenizer gave %v", peer.Parameters, peer.IDs)
	}
}

func comparePeerRows(t *testing.T, f *fixture, peer peerAnswer) {
	t.Helper()
	files, labels, _, err := f.client.Dataset(t.Context(), "hf://"+hubtest.SMSSpam, "", "label", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(peer.Labels, labels); diff != "" {
		t.Errorf("labels (-datasets +ours):\n%s", diff)
	}
	h, rows := sha256.New(), 0
	for _, file := range files {
		texts, classes := readRows(t, file)
		for i, text := range texts {
			_, _ = fmt.Fprintf(h, "%d\t%s\n", classes[i], text)
		}
		rows += len(texts)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); rows != peer.Rows || sum != peer.RowsSHA256 {
		t.Errorf("%d rows %s, datasets has %d rows %s", rows, sum, peer.Rows, peer.RowsSHA256)
	}
	if diff := cmp.Diff([]string{"sms", "label"}, peer.Columns); diff != "" || rows != 5574 {
		t.Errorf("%d rows, columns (-want +datasets):\n%s", rows, diff)
	}
}

// readRows reads the two columns of a file that hubtest.WriteParquet wrote.
func readRows(t *testing.T, file string) (texts []string, labels []int64) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := pqarrow.ReadTable(t.Context(), f, parquet.NewReaderProperties(memory.DefaultAllocator), pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Release()
	for _, chunk := range table.Column(0).Data().Chunks() {
		for i := range chunk.Len() {
			texts = append(texts, strings.Clone(chunk.(*array.String).Value(i)))
		}
	}
	for _, chunk := range table.Column(1).Data().Chunks() {
		labels = append(labels, chunk.(*array.Int64).Int64Values()...)
	}
	return texts, labels
}

// tinyTokenizer makes a folder with a WordPiece tokenizer of a few words, in place of bert-base-uncased's.
func tinyTokenizer(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	words := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "free", "entry", "!"}
	vocab := map[string]int{}
	for i, w := range words {
		vocab[w] = i
	}
	special := func(name string) map[string]any {
		return map[string]any{"id": vocab[name], "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
	}
	tokenizer, err := json.Marshal(map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil,
		"added_tokens":   []any{special("[PAD]"), special("[UNK]"), special("[CLS]"), special("[SEP]"), special("[MASK]")},
		"normalizer":     map[string]any{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": nil, "lowercase": true},
		"pre_tokenizer":  map[string]any{"type": "BertPreTokenizer"},
		"post_processor": map[string]any{"type": "BertProcessing", "sep": []any{"[SEP]", 3}, "cls": []any{"[CLS]", 2}},
		"decoder":        map[string]any{"type": "WordPiece", "prefix": "##", "cleanup": true},
		"model":          map[string]any{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, ".", map[string]string{"tokenizer.json": string(tokenizer), "vocab.txt": strings.Join(words, "\n") + "\n"})
	return filepath.Clean(dir)
}
