package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// appendTokens appends the tokens of a text without special tokens, until there are limit of them or a few more.
func (t *Tokenizer) appendTokens(dst []token, text string, limit int) []token {
	outer := splitter{matcher: t.raw, text: text}
	for p, ok := outer.cut(); ok && len(dst) < limit; p, ok = outer.cut() {
		switch {
		case p.token != nil:
			dst = append(dst, token{p.token.id, p.span})
		case t.normalized.empty:
			dst = t.model.appendTokens(dst, text, p.span, limit)
		case t.normalizer == nil:
			inner := splitter{matcher: t.normalized, text: text[p.start:p.end]}
			for q, ok := inner.cut(); ok && len(dst) < limit; q, ok = inner.cut() {
				q.start, q.end = q.start+p.start, q.end+p.start
				if q.token != nil {
					dst = append(dst, token{q.token.id, q.span})
				} else {
					dst = t.model.appendTokens(dst, text, q.span, limit)
				}
			}
		default:
			dst = t.appendNormalized(dst, text, p.span, limit)
		}
	}
	return dst
}

// appendNormalized looks for added tokens in the normalized text, which for this has to be there as a whole.
func (t *Tokenizer) appendNormalized(dst []token, text string, at span, limit int) []token {
	var runes []normalRune
	t.normalizer.normalize(text, at.start, at.end, func(n normalRune) { runes = append(runes, n) }, func() bool { return false })
	var s strings.Builder
	var starts []int // of each rune
	for _, n := range runes {
		starts = append(starts, s.Len())
		s.WriteRune(n.r)
	}
	w, _ := t.model.(*wordPiece)
	a := wordAligner{wordPiece: w, dst: dst, limit: limit}
	i := 0
	inner := splitter{matcher: t.normalized, text: s.String()}
	for p, ok := inner.cut(); ok && !a.full(); p, ok = inner.cut() {
		first := i
		for i < len(runes) && starts[i] < p.end {
			if p.token == nil {
				a.add(runes[i])
			}
			i++
		}
		if p.token != nil && i > first {
			a.dst = append(a.dst, token{p.token.id, span{runes[first].start, runes[i-1].end}})
		}
		a.end()
	}
	return a.dst
}

// charOffsets turns ascending-or-not byte offsets of a text into offsets of runes.
func runes(text string) []int32 {
	at := make([]int32, len(text)+1)
	var n int32
	for i := range len(text) {
		if i > 0 && utf8.RuneStart(text[i]) {
			n++
		}
		at[i] = n
	}
	at[len(text)] = n + 1
	return at
}
