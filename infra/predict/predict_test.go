package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
	"github.com/duratune/duratune/internal/train"
)

// lengthEngine is spam's score by the number of tokens: what a test can compute.
type lengthEngine struct {
	train.Engine
	calls []int // rows a call
}

func (e *lengthEngine) Logits(_ context.Context, inputs []train.Sequence, _ func(int)) ([][]float32, error) {
	e.calls = append(e.calls, len(inputs))
	out := make([][]float32, len(inputs))
	for i, in := range inputs {
		out[i] = []float32{4, float32(len(in.IDs))}
	}
	return out, nil
}

func (e *lengthEngine) Close() error { return nil }

const tokenizerJSON = `{"version":"1.0","added_tokens":[{"id":2,"content":"[CLS]","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false},
	{"id":3,"content":"[SEP]","special":true,"single_word":false,"lstrip":false,"rstrip":false,"normalized":false}],
	"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},
	"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],
	"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"[CLS]":{"id":"[CLS]","ids":[2],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[3],"tokens":["[SEP]"]}}},
	"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
	"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"[PAD]":0,"[UNK]":1,"[CLS]":2,"[SEP]":3,"a":4}}}`

const configJSON = `{"model_type":"bert","hidden_size":384,"num_hidden_layers":6,"num_attention_heads":12,"intermediate_size":1536,"vocab_size":5,"max_position_embeddings":512,
	"type_vocab_size":2,"hidden_act":"gelu","layer_norm_eps":1e-12,"hidden_dropout_prob":0.1,"attention_probs_dropout_prob":0.1,"pad_token_id":0,"id2label":{"0":"ham","1":"spam"}}`

// desk is a tracking server with one model, and the engine that serves it.
type desk struct {
	engine *lengthEngine
	env    map[string]string
	model  string
	dir    string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	s := mlflowtest.New(t, mlflowtest.Options{})
	c, err := mlflow.New(mlflow.Config{TrackingURI: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	experiment, err := c.EnsureExperiment(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	run, err := c.EnsureRun(t.Context(), mlflow.RunSpec{ExperimentID: experiment.ID, Name: "test", Key: "k", StartTime: 1})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: experiment.ID, RunID: run.ID, Name: "m", Key: "m"})
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"MLmodel": "", "model/config.json": configJSON, "components/tokenizer/tokenizer.json": tokenizerJSON} {
		if err := c.UploadArtifact(t.Context(), m.ArtifactURI, name, strings.NewReader(body), int64(len(body)), nil); err != nil {
			t.Fatal(err)
		}
	}
	return &desk{engine: &lengthEngine{}, env: map[string]string{"MLFLOW_TRACKING_URI": s.URL()}, model: "models:/" + m.ID, dir: t.TempDir()}
}

func (d *desk) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	open := func(context.Context, train.Spec) (train.Engine, error) { return d.engine, nil }
	err := run(t.Context(), append([]string{"-model", d.model}, args...), func(key string) string { return d.env[key] }, open, &out)
	return out.String(), err
}

func (d *desk) write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(d.dir, "in.jsonl")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPredictText(t *testing.T) {
	out, err := newDesk(t).run(t, "-text", "a a", "-file", "")
	var got prediction
	if err != nil || json.Unmarshal([]byte(out), &got) != nil {
		t.Fatalf("%q, %v", out, err)
	}
	if want := (prediction{"ham", 0.5, map[string]float64{"ham": 0.5, "spam": 0.5}}); !cmp.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestPredictLines: each line comes back with its own fields and its own prediction, in order, whatever the batches.
func TestPredictLines(t *testing.T) {
	d := newDesk(t)
	var in strings.Builder
	for i := range batchRows + 3 {
		fmt.Fprintf(&in, "{\"id\": %d, \"text\": %q}\n\n", i, strings.Repeat("a ", 1+i%9))
	}
	to := filepath.Join(d.dir, "out.jsonl")
	if _, err := d.run(t, "-file", d.write(t, in.String()), "-out", to); err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(body)), "\n")
	if len(lines) != batchRows+3 || !cmp.Equal(d.engine.calls, []int{batchRows, 3}) {
		t.Fatalf("%d lines in batches of %v", len(lines), d.engine.calls)
	}
	for i, line := range lines {
		var row struct {
			ID         int        `json:"id"`
			Text       string     `json:"text"`
			Prediction prediction `json:"prediction"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		want := "ham"
		if i%9 > 1 { // with the two tokens around it
			want = "spam"
		}
		if row.ID != i || row.Prediction.Label != want || row.Prediction.Scores[want] != row.Prediction.Score || len(row.Prediction.Scores) != 2 {
			t.Errorf("line %d: %s", i+1, line)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(d.dir, ".predict-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestPredictPairs: both texts of a pair count. The pair's template has no special tokens.
func TestPredictPairs(t *testing.T) {
	d := newDesk(t)
	out, err := d.run(t, "-text", "a a", "-pair", "a")
	if err != nil || !strings.HasPrefix(out, `{"label":"ham"`) {
		t.Errorf("three tokens: %q, %v", out, err)
	}
	out, err = d.run(t, "-file", d.write(t, `{"text": "a a", "text_pair": "a a a"}`+"\n"+`{"text": "a a", "text_pair": null}`))
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != 2 || !strings.Contains(lines[0], `"label":"spam"`) || !strings.Contains(lines[1], `"score":0.5`) {
		t.Errorf("five tokens, and four of a single text: %q, %v", out, err)
	}
}

func TestPredictRefuses(t *testing.T) {
	d := newDesk(t)
	tests := []struct {
		name string
		args []string
		file string
		says string
	}{
		{"nothing", nil, "", "give either TEXT or FILE"},
		{"both", []string{"-text", "a", "-file", "b"}, "", "give either TEXT or FILE"},
		{"no object", nil, "{\"text\":\"a\"}\n\nnope\n", "line 3: not a JSON object"},
		{"no text", nil, `{"txt":"a"}`, `line 1: has no string "text"`},
		{"null text", nil, `{"text":null}`, `line 1: has no string "text"`},
		{"text of another type", nil, `{"text":7}`, `line 1: has no string "text"`},
		{"pair without a text", []string{"-pair", "a", "-file", "b"}, "", "PAIR only with TEXT"},
		{"pair of another type", nil, `{"text":"a","text_pair":7}`, `line 1: its "text_pair" is not a string`},
		{"no such file", []string{"-file", "/no/such"}, "", "no such file"},
		{"no such model", []string{"-model", "models:/m-none", "-text", "a"}, "", "models:/m-none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args, to := tt.args, filepath.Join(d.dir, "out.jsonl")
			if tt.file != "" {
				args = []string{"-file", d.write(t, tt.file), "-out", to}
			}
			_, err := d.run(t, args...)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %q", err, tt.says)
			}
			if _, err := os.Stat(to); err == nil {
				t.Error("half an output was left under its name")
			}
		})
	}
}
