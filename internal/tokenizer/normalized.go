package tokenizer

import (
	"strings"
	"unicode/utf8"
	"unsafe"
)

// normalizedText finds added tokens in the normalized text, and gives what lies between them to the model. It keeps a
// chunk of the text only.
type normalizedText struct {
	wordAligner
	tokens *matcher
	runes  []normalRune
	bytes  []byte // of runes
	ends   []int  // of each rune in bytes
	chunk  int    // runes that are added before the next look
	next   int    // number of runes for which it is taken
}

// appendNormalized appends the tokens of text[at.start:at.end], which has no added tokens but such as are normalized.
// It looks at so many normalized runes at a time as chunk says. White space that an added token strips is found only as
// far as they go, which shows in the token's offsets, but not in the ids.
func (t *Tokenizer) appendNormalized(dst []token, text string, at span, limit, chunk int) []token {
	w, _ := t.model.(*wordPiece)
	n := &normalizedText{wordAligner: wordAligner{wordPiece: w, dst: dst, limit: limit}, tokens: t.normalized, chunk: chunk, next: chunk}
	t.normalizer.normalize(text, at.start, at.end, n.take, n.full)
	n.look(true)
	n.end()
	return n.dst
}

// take adds a rune to the chunk.
func (n *normalizedText) take(r normalRune) {
	n.bytes = utf8.AppendRune(n.bytes, r.r)
	n.runes, n.ends = append(n.runes, r), append(n.ends, len(n.bytes))
	if len(n.runes) >= n.next {
		n.look(false)
		n.next = len(n.runes) + n.chunk
	}
}

// look takes what is certain out of the chunk: all of it at the end, else what lies so far before its end that no added
// token can begin in it and go on behind.
func (n *normalizedText) look(last bool) {
	certain := len(n.bytes)
	if !last {
		certain -= n.tokens.longest
	}
	i := 0 // of the first rune that was not taken out
	// The string is that of the bytes themselves: it is not used once they change.
	pieces := splitter{matcher: n.tokens, text: unsafe.String(unsafe.SliceData(n.bytes), len(n.bytes))}
	for p, ok := pieces.cut(); ok && !n.full(); p, ok = pieces.cut() {
		if p.token == nil {
			for ; i < len(n.runes) && n.ends[i] <= min(p.end, certain); i++ {
				n.add(n.runes[i])
			}
		}
		if p.end > certain {
			break
		}
		if p.token == nil {
			continue
		}
		n.end()
		first := i
		for i < len(n.runes) && n.ends[i] <= p.end {
			i++
		}
		if i > first {
			at := span{n.runes[first].start, n.runes[i-1].end}
			n.dst = append(n.dst, token{p.token.id, nextWord(n.dst), strings.Clone(pieces.text[p.start:p.end]), at})
		}
	}
	if i == 0 {
		return
	}
	n.bytes = append(n.bytes[:0], n.bytes[n.ends[i-1]:]...)
	n.runes = append(n.runes[:0], n.runes[i:]...)
	n.ends = n.ends[:0]
	for _, r := range n.runes {
		n.ends = append(n.ends, utf8.RuneLen(r.r))
	}
	for k := 1; k < len(n.ends); k++ {
		n.ends[k] += n.ends[k-1]
	}
}
