package tokenizer

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/sugarme/tokenizer"
	"github.com/sugarme/tokenizer/normalizer"
)

// Sugarme returns the tokenizer behind sugarme's own type, for code that is written to it: model, template and decoder
// are set, so that EncodeSingle, EncodeBatch and Decode give the ids and texts that Hugging Face gives.
//
// Added tokens are not registered with it, because it loses them in the text; the model finds them. So it cannot skip
// special tokens, nor find those that its template adds. It takes valid UTF-8 without U+FFFD only: its NormalizedString
// panics on anything else.
func (t *Tokenizer) Sugarme() *tokenizer.Tokenizer {
	s := tokenizer.NewTokenizer(Model{t})
	s.WithPreTokenizer(withTokens{Model{t}})
	if t.post.template != nil {
		s.WithPostProcessor(t.post.template)
	}
	if t.decoder != nil {
		s.WithDecoder(t.decoder)
	}
	return s
}

// Model is a Tokenizer as sugarme's tokenizer.Model. It normalizes and splits by itself, so it is given whole texts.
type Model struct{ t *Tokenizer }

var _ tokenizer.Model = Model{}

// Tokenize returns the tokens of a text, with byte offsets, without special tokens.
func (m Model) Tokenize(text string) ([]tokenizer.Token, error) {
	var out []tokenizer.Token
	for _, k := range m.t.sequence(text, math.MaxInt).tokens {
		out = append(out, tokenizer.NewToken(int(k.id), m.t.shown(k), []int{k.start, k.end}))
	}
	return out, nil
}

// withTokens is a pre-tokenizer that leaves nothing to do: it brings the tokens along, and leaves out text that has none,
// for which sugarme would end the process.
type withTokens struct{ Model }

// PreTokenize tokenizes.
func (m withTokens) PreTokenize(text *tokenizer.PreTokenizedString) (*tokenizer.PreTokenizedString, error) {
	var err error
	text = text.Split(func(_ int, part *normalizer.NormalizedString) []tokenizer.SplitIdx {
		tokens, e := m.Tokenize(part.GetNormalized())
		if err = errors.Join(err, e); len(tokens) == 0 {
			return nil
		}
		return []tokenizer.SplitIdx{{Normalized: part, Tokens: tokens}}
	})
	return text, err
}

// TokenToId returns the id of a token, added ones included.
func (m Model) TokenToId(token string) (id int, ok bool) {
	for _, a := range m.t.added {
		if a.Content == token {
			return int(a.id), true
		}
	}
	i, ok := m.t.id[token]
	return int(i), ok
}

// IdToToken returns the token of an id.
func (m Model) IdToToken(id int) (token string, ok bool) {
	if id < 0 || id > math.MaxInt32 {
		return "", false
	}
	return m.t.content(int32(id))
}

// GetVocab returns a copy of the vocabulary, added tokens included.
func (m Model) GetVocab() map[string]int {
	out := map[string]int{}
	for token, id := range m.t.id {
		out[token] = int(id)
	}
	for _, a := range m.t.added {
		out[a.Content] = int(a.id)
	}
	return out
}

// GetVocabSize returns the number of tokens.
func (m Model) GetVocabSize() int { return len(m.GetVocab()) }

// Save writes vocab.txt, one token a line in the order of the ids, into a folder.
func (m Model) Save(path string, prefix ...string) error {
	name := strings.Join(append(prefix, "vocab.txt"), "-")
	var b strings.Builder
	for _, token := range m.t.list {
		b.WriteString(token + "\n")
	}
	if err := os.WriteFile(filepath.Join(path, name), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("tokenizer: save the vocabulary: %w", err)
	}
	return nil
}
