package tokenizer

import (
	"math"
	"strings"
	"unicode/utf8"

	"github.com/sugarme/tokenizer"
)

// Encoding is what Encode makes of a text: sugarme's Encoding, whose Offsets are bytes of the text, and the same offsets
// in characters, which are what Hugging Face's Python gives. Special tokens have [0 0] and the word -1.
type Encoding struct {
	tokenizer.Encoding
	CharOffsets [][]int
}

// Encode encodes a text as AppendIDs does, and says where its tokens lie.
func (t *Tokenizer) Encode(text string, maxLength int) *Encoding {
	limit := math.MaxInt
	if maxLength > 0 {
		limit = max(0, maxLength-numAdded(t.post.single))
	}
	s := t.sequence(text, limit)
	s.tokens = s.tokens[:min(limit, len(s.tokens))]
	return t.assemble(t.post.single, maxLength, s)
}

// EncodePair encodes two texts that the model sees as one input, such as a question and its context. It takes from the
// longer one first to keep to maxLength (truncation="longest_first").
func (t *Tokenizer) EncodePair(first, second string, maxLength int) *Encoding {
	a, b := t.sequence(first, math.MaxInt), t.sequence(second, math.MaxInt) // which is longer has to be known
	if maxLength > 0 {
		n, m := longestFirst(len(a.tokens), len(b.tokens), max(0, maxLength-numAdded(t.post.pair)))
		a.tokens, b.tokens = a.tokens[:n], b.tokens[:m]
	}
	return t.assemble(t.post.pair, maxLength, a, b)
}

// longestFirst cuts two lengths until their sum is at most limit: truncate_encodings of Hugging Face's truncation.rs.
func longestFirst(first, second, limit int) (int, int) {
	if first+second <= limit {
		return first, second
	}
	short := min(first, second)
	long := max(short, limit-short)
	if short+long > limit {
		short = limit / 2
		long = short + limit%2
	}
	if first > second {
		return long, short
	}
	return short, long
}

// numAdded counts the special tokens of a template.
func numAdded(parts []part) (n int) {
	for _, p := range parts {
		n += len(p.ids)
	}
	return n
}

// sequence is an encoded text.
type sequence struct {
	text   string
	tokens []token
}

func (t *Tokenizer) sequence(text string, limit int) sequence {
	valid := replaceInvalid(text)
	tokens := t.appendTokens(nil, valid, limit, math.MaxInt)
	if t.post.trim {
		for i := range tokens {
			t.trim(valid, &tokens[i], i == 0)
		}
	}
	if valid != text {
		restore(text, tokens)
	}
	return sequence{text, tokens}
}

// trim takes white space out of a token's span: process_offsets of Hugging Face's byte_level.rs, which counts
// characters.
func (t *Tokenizer) trim(text string, k *token, first bool) {
	content := t.shown(*k)
	isSpace := func(r rune) bool { return r == byteSymbols[' '] || isWhite(r) }
	leading := utf8.RuneCountInString(content) - utf8.RuneCountInString(strings.TrimLeftFunc(content, isSpace))
	trailing := utf8.RuneCountInString(content) - utf8.RuneCountInString(strings.TrimRightFunc(content, isSpace))
	if leading == 1 && t.post.prefixSpace && (first || k.start == 0) {
		leading = 0 // it was put there by add_prefix_space
	}
	for ; leading > 0 && k.start < k.end; leading-- {
		_, n := utf8.DecodeRuneInString(text[k.start:])
		k.start += n
	}
	end := k.end
	for ; trailing > 0 && end > 0; trailing-- {
		_, n := utf8.DecodeLastRuneInString(text[:end])
		end -= n
	}
	if trailing == 0 {
		k.end = max(end, k.start)
	}
}

// assemble puts the sequences into the template, and cuts what a very small maxLength does not hold.
func (t *Tokenizer) assemble(parts []part, maxLength int, sequences ...sequence) *Encoding {
	e := &Encoding{Encoding: *tokenizer.DefaultEncoding(), CharOffsets: [][]int{}}
	for _, p := range parts {
		if p.sequence < 0 {
			for i, id := range p.ids {
				e.add(id, p.typeID, p.tokens[i], -1, span{}, span{})
				e.SpecialTokenMask[len(e.Ids)-1] = 1
			}
			continue
		}
		s := sequences[p.sequence]
		from, chars := len(e.Ids), runeIndex(s.text)
		for _, k := range s.tokens {
			e.add(k.id, p.typeID, t.shown(k), int(k.word), k.span, span{chars[k.start], chars[k.end]})
		}
		if n := len(e.Ids); n > from { // NewRange panics on an empty one
			e.SequenceRanges[p.sequence] = tokenizer.NewRange(from, n)
		}
	}
	if maxLength > 0 && len(e.Ids) > maxLength {
		e.cut(maxLength)
	}
	return e
}

// shown is the token as Hugging Face shows it: of an added token, what was found.
func (t *Tokenizer) shown(k token) string {
	if k.found != "" {
		return k.found
	}
	return t.byID[k.id]
}

func (e *Encoding) add(id int32, typeID int, content string, word int, bytes, chars span) {
	e.Ids = append(e.Ids, int(id))
	e.TypeIds = append(e.TypeIds, typeID)
	e.Tokens = append(e.Tokens, content)
	e.Words = append(e.Words, word)
	e.Offsets = append(e.Offsets, []int{bytes.start, bytes.end})
	e.CharOffsets = append(e.CharOffsets, []int{chars.start, chars.end})
	e.SpecialTokenMask = append(e.SpecialTokenMask, 0)
	e.AttentionMask = append(e.AttentionMask, 1)
}

func (e *Encoding) cut(n int) {
	e.Ids, e.TypeIds, e.Tokens, e.Words = e.Ids[:n], e.TypeIds[:n], e.Tokens[:n], e.Words[:n]
	e.Offsets, e.CharOffsets = e.Offsets[:n], e.CharOffsets[:n]
	e.SpecialTokenMask, e.AttentionMask = e.SpecialTokenMask[:n], e.AttentionMask[:n]
}

// appendTokens appends the tokens of a text without special tokens, until there are limit of them or a few more. chunk is
// that of appendNormalized.
func (t *Tokenizer) appendTokens(dst []token, text string, limit, chunk int) []token {
	outer := splitter{matcher: t.raw, text: text}
	for p, ok := outer.cut(); ok && len(dst) < limit; p, ok = outer.cut() {
		switch {
		case p.token != nil:
			dst = append(dst, token{p.token.id, nextWord(dst), text[p.start:p.end], p.span})
		case t.normalizer != nil && !t.normalized.empty:
			dst = t.appendNormalized(dst, text, p.span, limit, chunk)
		default:
			dst = t.appendPiece(dst, text, p.span, limit)
		}
	}
	return dst
}

// appendPiece looks for the added tokens that are normalized where there is no normalizer.
func (t *Tokenizer) appendPiece(dst []token, text string, at span, limit int) []token {
	inner := splitter{matcher: t.normalized, text: text[at.start:at.end]}
	for p, ok := inner.cut(); ok && len(dst) < limit; p, ok = inner.cut() {
		p.start, p.end = p.start+at.start, p.end+at.start
		if p.token != nil {
			dst = append(dst, token{p.token.id, nextWord(dst), text[p.start:p.end], p.span})
		} else {
			dst = t.model.appendTokens(dst, text, p.span, limit)
		}
	}
	return dst
}
