package hubtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"github.com/duratune/duratune/internal/safetensors"
)

// SMSSpam and DistilBERT are the repositories that WriteSMSSpam and WriteDistilBERT make.
const (
	SMSSpam    = "ucirvine/sms_spam"
	DistilBERT = "distilbert/distilbert-base-uncased"
)

// Rows are the rows of a text data set with a class label.
type Rows struct {
	Texts      []string
	Labels     []int64
	ClassNames []string // "" for no metadata about them in the file
}

// ReadSMS reads the SMS Spam Collection: a line is ham or spam, a tab, and the text.
func ReadSMS(file string) (Rows, error) {
	f, err := os.Open(file)
	if err != nil {
		return Rows{}, err
	}
	defer f.Close()
	rows := Rows{ClassNames: []string{"ham", "spam"}}
	index := map[string]int64{"ham": 0, "spam": 1}
	lines := bufio.NewScanner(f)
	lines.Split(splitLF) // a message may hold other line ends
	for lines.Scan() {
		label, text, ok := strings.Cut(lines.Text(), "\t")
		i, known := index[label]
		if !ok || !known {
			return Rows{}, fmt.Errorf("%s: row %d is not label<TAB>text", file, len(rows.Texts)+1)
		}
		rows.Texts, rows.Labels = append(rows.Texts, text), append(rows.Labels, i)
	}
	return rows, lines.Err()
}

// splitLF splits at line feeds and keeps all else.
func splitLF(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// WriteParquet writes rows as Hugging Face's datasets does: columns text and label, and the class names in the
// metadata key huggingface.
func WriteParquet(file, textColumn string, rows Rows) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	feature := map[string]any{textColumn: map[string]string{"dtype": "string", "_type": "Value"}}
	var meta arrow.Metadata
	if len(rows.ClassNames) > 0 {
		feature["label"] = map[string]any{"names": rows.ClassNames, "_type": "ClassLabel"}
		js, err := json.Marshal(map[string]any{"info": map[string]any{"features": feature}})
		if err != nil {
			return err
		}
		meta = arrow.NewMetadata([]string{"huggingface"}, []string{string(js)})
	}
	schema := arrow.NewSchema([]arrow.Field{
		{Name: textColumn, Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "label", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
	}, &meta)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	b.Field(0).(*array.StringBuilder).AppendValues(rows.Texts, nil)
	b.Field(1).(*array.Int64Builder).AppendValues(rows.Labels, nil)
	record := b.NewRecord()
	defer record.Release()

	f, err := os.Create(file)
	if err != nil {
		return err
	}
	w, err := pqarrow.NewFileWriter(schema, f, parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy)),
		pqarrow.NewArrowWriterProperties(pqarrow.WithStoreSchema()))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(w.Write(record), w.Close()) // which closes f
}

// smsCard is the front matter of the real data set's card, as far as it says what is where.
const smsCard = `---
task_categories:
- text-classification
pretty_name: SMS Spam Collection Data Set
dataset_info:
  config_name: plain_text
  features:
  - name: sms
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': ham
          '1': spam
  splits:
  - name: train
    num_examples: %d
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
  default: true
---

# SMS Spam Collection
`

// WriteSMSSpam makes the repository SMSSpam below a hub's root from the file of the SMS Spam Collection.
func WriteSMSSpam(root, file string) error {
	rows, err := ReadSMS(file)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "datasets", filepath.FromSlash(SMSSpam), "main")
	if err := WriteParquet(filepath.Join(dir, "plain_text", "train-00000-of-00001.parquet"), "sms", rows); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "README.md"), fmt.Appendf(nil, smsCard, len(rows.Texts)), 0o644)
}

// Size is the shape of a DistilBERT.
type Size struct{ Vocab, Positions, Dim, Hidden, Layers, Heads int }

// BaseSize is that of distilbert-base-uncased, 66 million parameters; TinySize trains in seconds.
var (
	BaseSize = Size{Vocab: 30522, Positions: 512, Dim: 768, Hidden: 3072, Layers: 6, Heads: 12}
	TinySize = Size{Vocab: 30522, Positions: 512, Dim: 64, Hidden: 128, Layers: 2, Heads: 4}
)

// WriteDistilBERT makes the repository DistilBERT below a hub's root: random weights drawn from seed as Hugging Face
// initialises them, under the names of the real checkpoint, the masked-LM head included, with the bert-base-uncased
// tokenizer files of tokenizerDir.
func WriteDistilBERT(root, tokenizerDir string, size Size, seed uint64) error {
	dir := filepath.Join(root, "models", filepath.FromSlash(DistilBERT), "main")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := copyTokenizer(tokenizerDir, dir); err != nil {
		return err
	}
	config, err := json.MarshalIndent(map[string]any{
		"activation": "gelu", "architectures": []string{"DistilBertForMaskedLM"}, "attention_dropout": 0.1, "dim": size.Dim, "dropout": 0.1,
		"hidden_dim": size.Hidden, "initializer_range": 0.02, "max_position_embeddings": size.Positions, "model_type": "distilbert",
		"n_heads": size.Heads, "n_layers": size.Layers, "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2,
		"sinusoidal_pos_embds": false, "tie_weights_": true, "transformers_version": "4.10.0.dev0", "vocab_size": size.Vocab,
	}, "", "  ")
	if err != nil {
		return err
	}
	for name, content := range map[string]string{
		"config.json":           string(config),
		"tokenizer_config.json": `{"do_lower_case": true, "model_max_length": 512}`,
		"README.md":             "---\nlicense: apache-2.0\n---\n\nRandom weights in the shape of distilbert-base-uncased.\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		return err
	}
	return errors.Join(safetensors.Write(f, map[string]string{"format": "pt"}, size.tensors(seed)), f.Close())
}

// copyTokenizer copies a bert-base-uncased tokenizer without the truncation and padding that others have built in.
func copyTokenizer(from, to string) error {
	vocab, err := os.ReadFile(filepath.Join(from, "vocab.txt"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(from, "tokenizer.json"))
	if err != nil {
		return err
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil {
		return fmt.Errorf("%s/tokenizer.json: %w", from, err)
	}
	parts["truncation"], parts["padding"] = json.RawMessage("null"), json.RawMessage("null")
	if text, err = json.Marshal(parts); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(to, "vocab.txt"), vocab, 0o644), os.WriteFile(filepath.Join(to, "tokenizer.json"), text, 0o644))
}

// tensors draws the checkpoint: normal(0, 0.02) for weights, 1 and 0 for layer norms, 0 for biases.
func (s Size) tensors(seed uint64) []safetensors.Tensor {
	rng := rand.New(rand.NewPCG(seed, 0))
	var out []safetensors.Tensor
	add := func(name string, value func() float64, shape ...int64) {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		data := make([]byte, 0, 4*n)
		for range n {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(value())))
		}
		out = append(out, safetensors.Tensor{Name: name, DType: "F32", Shape: shape, Data: data})
	}
	normal := func() float64 { return 0.02 * rng.NormFloat64() }
	constant := func(v float64) func() float64 { return func() float64 { return v } }
	linear := func(name string, to, from int) {
		add(name+".weight", normal, int64(to), int64(from))
		add(name+".bias", constant(0), int64(to))
	}
	norm := func(name string) {
		add(name+".weight", constant(1), int64(s.Dim))
		add(name+".bias", constant(0), int64(s.Dim))
	}
	add("distilbert.embeddings.word_embeddings.weight", normal, int64(s.Vocab), int64(s.Dim))
	add("distilbert.embeddings.position_embeddings.weight", normal, int64(s.Positions), int64(s.Dim))
	norm("distilbert.embeddings.LayerNorm")
	for i := range s.Layers {
		layer := fmt.Sprintf("distilbert.transformer.layer.%d.", i)
		for _, lin := range []string{"q_lin", "k_lin", "v_lin", "out_lin"} {
			linear(layer+"attention."+lin, s.Dim, s.Dim)
		}
		norm(layer + "sa_layer_norm")
		linear(layer+"ffn.lin1", s.Hidden, s.Dim)
		linear(layer+"ffn.lin2", s.Dim, s.Hidden)
		norm(layer + "output_layer_norm")
	}
	linear("vocab_transform", s.Dim, s.Dim)
	norm("vocab_layer_norm")
	add("vocab_projector.bias", constant(0), int64(s.Vocab))
	return out
}
