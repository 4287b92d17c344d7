package tokenizer

import (
	"errors"
	"math"
	"slices"

	"github.com/sugarme/tokenizer"
)

// model is what turns text without added tokens into ids.
type model interface {
	// appendIDs appends ids until dst has limit of them, or as many more as its last word has.
	appendIDs(dst []int32, text string, limit int) []int32
	// appendTokens does the same for text[at.start:at.end] and says where each token lies.
	appendTokens(dst []token, text string, at span, limit int) []token
}

// token is an id, the number of its word, and the bytes of the text that it stands for. An added token is a word too; found
// is what was found of it, with the white space that it strips.
type token struct {
	id    int32
	word  int32
	found string
	span
}

// nextWord is the number of the word that comes after the tokens.
func nextWord(tokens []token) int32 {
	if len(tokens) == 0 {
		return 0
	}
	return tokens[len(tokens)-1].word + 1
}

// Tokenizer encodes text as one tokenizer.json says.
type Tokenizer struct {
	kind  string
	model model
	vocabulary
	normalizer *bertNormalizer // nil for byte-level BPE

	raw, normalized *matcher // added tokens that are looked for in the text and in the normalized text
	added           map[int32]*added
	special         map[string]bool

	post           postProcessor
	prefix, suffix []int32 // of a single text
	decoder        tokenizer.Decoder
	padID          int32
	size           int
}

// Load reads a tokenizer.json. The error is an *UnsupportedError if the file asks for anything that would not be done
// exactly, or cannot be understood; all other errors are those of reading it.
func Load(path string) (*Tokenizer, error) {
	cfg, err := readConfig(path)
	if err == nil {
		var t *Tokenizer
		if t, err = build(cfg); err == nil {
			return t, nil
		}
	}
	if bad := (*UnsupportedError)(nil); errors.As(err, &bad) {
		bad.File = path
	}
	return nil, err
}

// AppendIDs appends the ids of a text to dst, with the special tokens of a single sequence, cut on the right to
// maxLength as Hugging Face's truncation=True does; the special tokens remain. A maxLength of 0 or less sets no limit;
// one that does not even hold the special tokens cuts them too.
func (t *Tokenizer) AppendIDs(dst []int32, text string, maxLength int) []int32 {
	start, limit := len(dst), math.MaxInt
	dst = append(dst, t.prefix...)
	if maxLength > 0 {
		limit = max(len(dst), start+maxLength-len(t.suffix))
	}
	dst = t.appendText(dst, text, limit)
	if len(dst) > limit {
		dst = dst[:limit]
	}
	dst = append(dst, t.suffix...)
	if maxLength > 0 && len(dst) > start+maxLength {
		dst = dst[:start+maxLength]
	}
	return dst
}

// AppendPair appends the ids of two texts to ids, with the special tokens of a pair, and the token type of each to types. Both are
// cut as [Tokenizer.EncodePair] cuts them.
func (t *Tokenizer) AppendPair(ids []int32, types []int8, first, second string, maxLength int) ([]int32, []int8) {
	start, texts := len(ids), [2][]int32{t.appendText(nil, first, math.MaxInt), t.appendText(nil, second, math.MaxInt)}
	if maxLength > 0 {
		n, m := longestFirst(len(texts[0]), len(texts[1]), max(0, maxLength-numAdded(t.post.pair)))
		texts[0], texts[1] = texts[0][:n], texts[1][:m]
	}
	for _, p := range t.post.pair {
		part := p.ids
		if p.sequence >= 0 {
			part = texts[p.sequence]
		}
		ids = append(ids, part...)
		types = append(types, slices.Repeat([]int8{int8(p.typeID)}, len(part))...)
	}
	if extra := len(ids) - start - maxLength; maxLength > 0 && extra > 0 {
		ids, types = ids[:len(ids)-extra], types[:len(types)-extra]
	}
	return ids, types
}

// PairTypes is how many token types a model must have for pairs: the highest in a pair plus one.
func (t *Tokenizer) PairTypes() int {
	most := 0
	for _, p := range t.post.pair {
		most = max(most, p.typeID)
	}
	return most + 1
}

// appendText appends the ids of a text without special tokens.
func (t *Tokenizer) appendText(dst []int32, text string, limit int) []int32 {
	if !t.normalized.empty && t.normalizer != nil {
		const chunk = 4096
		for _, token := range t.appendTokens(nil, text, limit-len(dst), chunk) {
			dst = append(dst, token.id)
		}
		return dst
	}
	if t.raw.empty && t.normalized.empty {
		return t.model.appendIDs(dst, text, limit)
	}
	outer := splitter{matcher: t.raw, text: text}
	for p, ok := outer.cut(); ok && len(dst) < limit; p, ok = outer.cut() {
		if p.token != nil {
			dst = append(dst, p.token.id)
			continue
		}
		inner := splitter{matcher: t.normalized, text: text[p.start:p.end]}
		for q, ok := inner.cut(); ok && len(dst) < limit; q, ok = inner.cut() {
			if q.token != nil {
				dst = append(dst, q.token.id)
			} else {
				dst = t.model.appendIDs(dst, inner.text[q.start:q.end], limit)
			}
		}
	}
	return dst
}

// Kind names the model: WordPiece or BPE.
func (t *Tokenizer) Kind() string { return t.kind }

// VocabSize is the number of rows that a model's embeddings need: the highest id plus one, added tokens included. It is
// Hugging Face's len(tokenizer) unless ids are left out.
func (t *Tokenizer) VocabSize() int { return t.size }

// PadID is the id of the padding token: that of the file's padding section, else of [PAD] or <pad>, else 0.
func (t *Tokenizer) PadID() int32 { return t.padID }
