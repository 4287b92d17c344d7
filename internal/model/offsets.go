package model

// Offsets are the places of the weights in the flat buffer, in the order that the native code reads them: the tables (word,
// position, token type or -1), the embeddings' norm, for each layer query-key-value, output, norm, up, down, norm, then the
// head's two linears; of each module the weight and then the bias.
func (l *Layout) Offsets(c Config) []int64 {
	n := namesOf(c)
	out := []int64{l.At(n.word).Offset, l.At(n.position).Offset, -1}
	if c.TokenType > 0 {
		out[2] = l.At(n.tokenType).Offset
	}
	add := func(modules ...string) {
		for _, m := range modules {
			out = append(out, l.At(weight(m)).Offset, l.At(bias(m)).Offset)
		}
	}
	add(n.embedNorm)
	for i := range c.Layers {
		b := n.block(i)
		add(b.query, b.out, b.attentionNorm, b.up, b.down, b.outputNorm)
	}
	add(n.dense, n.classifier)
	return out
}
