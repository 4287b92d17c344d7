package model

import "fmt"

// Weight is one named tensor of a model and its place in the flat buffer.
type Weight struct {
	Name   string  // Hugging Face's, with the prefix of the architecture
	Shape  []int64 // matrices are [out in]
	Offset int64   // in elements
	Size   int64   // elements
	Head   bool    // belongs to the classification head, which a base model lacks
}

// Layout is the order of all weights in the flat buffer: the embedding tables, then the matrices, then biases and layer
// norms, which are what AdamW does not decay. Every group of weights that is used as one starts at a multiple of 64 bytes.
type Layout struct {
	Weights  []Weight
	Size     int64 // elements, gaps included
	Matrices int64 // offset of the first matrix of the layers
	Head     int64 // offset of the first matrix of the head, behind those of the layers
	Decayed  int64 // elements before this one are decayed

	index map[string]int
}

// At returns the weight of that name. It must exist.
func (l *Layout) At(name string) Weight { return l.Weights[l.index[name]] }

// Parameters counts the weights outside the embedding tables, as num_parameters(exclude_embeddings=True) of
// transformers does.
func (l *Layout) Parameters() int64 {
	var n int64
	for _, w := range l.Weights {
		if w.Offset >= l.Matrices {
			n += w.Size
		}
	}
	return n
}

// align is the alignment of a group in elements: one cache line, one AVX-512 register.
const align = 16

// pad rounds the size up to the alignment and returns it.
func (l *Layout) pad() int64 {
	l.Size = (l.Size + align - 1) / align * align
	return l.Size
}

func (l *Layout) add(head bool, shape []int64, names ...string) {
	l.pad()
	size := int64(1)
	for _, d := range shape {
		size *= d
	}
	for _, name := range names {
		l.index[name] = len(l.Weights)
		l.Weights = append(l.Weights, Weight{Name: name, Shape: shape, Offset: l.Size, Size: size, Head: head})
		l.Size += size
	}
}

// NewLayout lays out the model of a config with a head of the given number of labels.
func NewLayout(c Config, labels int) *Layout {
	l := &Layout{index: map[string]int{}}
	n := namesOf(c)
	d, inner := int64(c.Hidden), int64(c.Inner)

	l.add(false, []int64{int64(c.Vocab), d}, n.word)
	l.add(false, []int64{int64(c.Positions), d}, n.position)
	if c.TokenType > 0 {
		l.add(false, []int64{int64(c.TokenType), d}, n.tokenType)
	}
	l.Matrices = l.pad()
	for i := range c.Layers {
		b := n.block(i)
		l.add(false, []int64{d, d}, weight(b.query), weight(b.key), weight(b.value))
		l.add(false, []int64{d, d}, weight(b.out))
		l.add(false, []int64{inner, d}, weight(b.up))
		l.add(false, []int64{d, inner}, weight(b.down))
	}
	l.Head = l.pad()
	l.add(true, []int64{d, d}, weight(n.dense))
	l.add(true, []int64{int64(labels), d}, weight(n.classifier))
	l.Decayed = l.pad()

	l.add(false, []int64{d}, weight(n.embedNorm))
	l.add(false, []int64{d}, bias(n.embedNorm))
	for i := range c.Layers {
		b := n.block(i)
		l.add(false, []int64{d}, bias(b.query), bias(b.key), bias(b.value))
		l.add(false, []int64{inner}, bias(b.up))
		for _, name := range []string{bias(b.out), bias(b.down), weight(b.attentionNorm), bias(b.attentionNorm), weight(b.outputNorm), bias(b.outputNorm)} {
			l.add(false, []int64{d}, name)
		}
	}
	l.add(true, []int64{d}, bias(n.dense))
	l.add(true, []int64{int64(labels)}, bias(n.classifier))
	l.pad()
	return l
}

func weight(module string) string { return module + ".weight" }
func bias(module string) string   { return module + ".bias" }

// names are the modules of an architecture, as in its state dict.
type names struct {
	prefix                                string
	word, position, tokenType             string // tables, with .weight
	embedNorm, dense, classifier          string
	layer                                 string // format of a block's prefix
	query, key, value, out, attentionNorm string // below a block
	up, down, outputNorm                  string
}

// block is the modules of one layer.
type block struct{ query, key, value, out, attentionNorm, up, down, outputNorm string }

func (n names) block(i int) block {
	p := fmt.Sprintf(n.layer, i)
	return block{p + n.query, p + n.key, p + n.value, p + n.out, p + n.attentionNorm, p + n.up, p + n.down, p + n.outputNorm}
}

// namesOf returns the names of a config's architecture.
func namesOf(c Config) names {
	p := c.Type + "."
	n := names{
		prefix: p, word: p + "embeddings.word_embeddings.weight", position: p + "embeddings.position_embeddings.weight",
		tokenType: p + "embeddings.token_type_embeddings.weight", embedNorm: p + "embeddings.LayerNorm",
		layer: p + "encoder.layer.%d.", query: "attention.self.query", key: "attention.self.key", value: "attention.self.value",
		out: "attention.output.dense", attentionNorm: "attention.output.LayerNorm",
		up: "intermediate.dense", down: "output.dense", outputNorm: "output.LayerNorm",
	}
	switch c.Type {
	case DistilBERT:
		n.layer, n.query, n.key, n.value = p+"transformer.layer.%d.", "attention.q_lin", "attention.k_lin", "attention.v_lin"
		n.out, n.attentionNorm, n.up, n.down, n.outputNorm = "attention.out_lin", "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"
		n.dense, n.classifier = "pre_classifier", "classifier"
	case RoBERTa:
		n.dense, n.classifier = "classifier.dense", "classifier.out_proj"
	default:
		n.dense, n.classifier = p+"pooler.dense", "classifier"
	}
	return n
}
