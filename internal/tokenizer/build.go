package tokenizer

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sugarme/tokenizer"
	"github.com/sugarme/tokenizer/decoder"
)

// build makes a Tokenizer of a configuration, component by component.
func build(cfg *tokenizer.Config) (*Tokenizer, error) {
	fail := &failure{}
	root := section{"", map[string]any{"version": cfg.Version, "truncation": object(cfg.Truncation), "padding": object(cfg.Padding),
		"normalizer": object(cfg.Normalizer), "pre_tokenizer": object(cfg.PreTokenizer), "post_processor": object(cfg.PostProcessor),
		"decoder": object(cfg.Decoder), "model": object(cfg.Model)}, fail}
	root.only("version", "1.0")
	if s := root.child("truncation"); s.values != nil {
		s.only("direction", nil, "Right")
	}
	t := &Tokenizer{}
	m := root.child("model")
	if m.values == nil {
		root.fail("model", "is missing")
	}
	t.kind = kind(m)
	switch t.kind {
	case "WordPiece":
		t.wordPiece(root, m)
	case "BPE":
		t.byteBPE(root, m)
	default:
		m.only("type", "WordPiece", "BPE")
	}
	t.post = readPostProcessor(root.child("post_processor"))
	t.addTokens(root, cfg.AddedTokens)
	t.readPadding(root.child("padding"))
	t.readDecoder(root.child("decoder"))
	if fail.err != nil {
		return nil, fail.err
	}
	t.finish()
	return t, nil
}

// object keeps a missing section from becoming a map that is not nil.
func object(m map[string]any) any {
	if m == nil {
		return nil
	}
	return m
}

// kind is the model's type. Files from before 2020 do not name it.
func kind(m section) string {
	switch typ := m.typ(); {
	case typ != "":
		return typ
	case m.values["merges"] != nil:
		return "BPE"
	case m.values["max_input_chars_per_word"] != nil:
		return "WordPiece"
	default:
		return ""
	}
}

func (t *Tokenizer) wordPiece(root, m section) {
	n := root.child("normalizer")
	n.only("type", "BertNormalizer")
	root.child("pre_tokenizer").only("type", "BertPreTokenizer")
	if n.err != nil {
		return
	}
	lower := must[bool](n, "lowercase")
	t.normalizer = &bertNormalizer{clean: must[bool](n, "clean_text"), cjk: must[bool](n, "handle_chinese_chars"),
		lower: lower, strip: may(n, "strip_accents", lower), unicode: loadUnicode()}
	t.vocabulary = readVocabulary(m)
	unkToken, prefix := must[string](m, "unk_token"), must[string](m, "continuing_subword_prefix")
	maxChars := must[float64](m, "max_input_chars_per_word")
	unk, ok := t.id[unkToken]
	if !ok {
		m.fail("unk_token", "%s is not in the vocabulary", show(unkToken))
	}
	const most = 1 << 20 // a word is kept whole in memory
	if maxChars < 0 || maxChars > most || maxChars != float64(int(maxChars)) {
		m.fail("max_input_chars_per_word", "got %v, want an integer of 0 to %d", maxChars, most)
	}
	if m.err != nil {
		return
	}
	w, ok := newWordPiece(t.vocabulary, t.normalizer, unk, prefix, int(maxChars))
	if !ok {
		m.fail("vocab", "is too large")
		return
	}
	t.model = w
}

func (t *Tokenizer) byteBPE(root, m section) {
	root.only("normalizer", nil)
	pre := root.child("pre_tokenizer")
	pre.only("type", "ByteLevel")
	m.only("dropout", nil, 0.0)
	m.only("continuing_subword_prefix", nil, "")
	m.only("end_of_word_suffix", nil, "")
	m.only("byte_fallback", nil, false)
	if m.err != nil {
		return
	}
	b := &byteBPE{split: newByteSplitter(loadUnicode()), window: 4096,
		prefixSpace: must[bool](pre, "add_prefix_space"), useRegex: may(pre, "use_regex", true)}
	b.scratch.New = func() any { return new(merging) }
	t.vocabulary = readVocabulary(m)
	b.vocabulary = t.vocabulary
	for c, symbol := range byteSymbols {
		id, ok := t.id[string(symbol)]
		if !ok {
			m.fail("vocab", "has no token %q for the byte %#02x", symbol, c)
		}
		b.symbols[c] = id
	}
	b.readMerges(m)
	if m.err != nil {
		return
	}
	b.findWhole(may(m, "ignore_merges", false))
	t.model = b
}

// readMerges reads the merges, each "left right" or ["left", "right"].
func (m *byteBPE) readMerges(s section) {
	list := must[[]any](s, "merges")
	if text, ok := s.values["merges"].([]any); ok && len(text) > 0 {
		if first, ok := text[0].(string); ok && strings.HasPrefix(first, "#version") {
			list = list[1:]
		}
	}
	m.merges = newMerges(len(list))
	for rank, v := range list {
		key := fmt.Sprintf("merges[%d]", rank)
		left, right, ok := pair(v)
		l, okL := m.id[left]
		r, okR := m.id[right]
		id, okID := m.id[left+right]
		if !ok || !okL || !okR || !okID {
			s.fail(key, "%s is not a pair of tokens that make a third", show(v))
			return
		}
		m.merges.add(l, r, merge{uint32(rank), id})
	}
}

func pair(v any) (left, right string, ok bool) {
	switch v := v.(type) {
	case string:
		left, right, ok = strings.Cut(v, " ")
		return left, right, ok && !strings.Contains(right, " ")
	case []any:
		if len(v) != 2 {
			return "", "", false
		}
		left, ok = v[0].(string)
		right, okRight := v[1].(string)
		return left, right, ok && okRight
	default:
		return "", "", false
	}
}

// findWhole lists the words that are one token: those that merge into it, or with ignore_merges all of the vocabulary.
func (m *byteBPE) findWhole(ignoreMerges bool) {
	var list []string
	var ids []int32
	s := &merging{}
	for i, token := range m.list {
		raw, ok := rawBytes(token)
		if !ok || len(raw) == 0 {
			continue
		}
		if !ignoreMerges {
			m.merge(string(raw), s)
			if len(s.ids) != 1 || s.ids[0] != m.ids[i] {
				continue
			}
		}
		list, ids = append(list, string(raw)), append(ids, m.ids[i])
		m.longest = max(m.longest, len(raw))
	}
	m.whole = newWords(list, ids)
}

// addTokens gives the added tokens their ids as Hugging Face does: the one that the model or an earlier token has, else
// the next free one. Where that is not what the file says, the file is refused: Hugging Face only warns.
func (t *Tokenizer) addTokens(root section, list []tokenizer.TokenConfig) {
	t.added, t.special = map[int32]*added{}, map[string]bool{}
	ids := map[string]int32{}
	next := int32(len(t.list))
	for i, c := range list {
		s := section{fmt.Sprintf("added_tokens[%d]", i), nil, root.failure}
		if c.Content == "" {
			continue
		}
		id, known := ids[c.Content]
		if !known {
			id, known = t.id[c.Content]
		}
		if !known {
			id = next
			next++
		}
		ids[c.Content] = id
		if int64(id) != c.Id {
			s.fail("id", "got %d for %s, but Hugging Face gives it %d", c.Id, show(c.Content), id)
		}
		if c.SingleWord {
			s.fail("single_word", "true is not supported")
		}
		a := &added{AddedToken: tokenizer.AddedToken{Content: c.Content, LStrip: c.Lstrip, RStrip: c.Rstrip, Normalized: c.Normalized},
			id: id, pattern: c.Content}
		if c.Normalized && t.normalizer != nil {
			a.pattern = t.normalizer.normalized(c.Content)
		}
		t.added[id] = a
		if c.Special {
			t.special[c.Content] = true
		}
	}
}

func (t *Tokenizer) readPadding(s section) {
	for _, name := range []string{"<pad>", "[PAD]"} {
		for _, a := range t.added {
			if a.Content == name {
				t.padID = a.id
			}
		}
	}
	if s.values == nil {
		return
	}
	s.only("direction", nil, "Right")
	t.padID = s.id("pad_id", s.values["pad_id"])
}

func (t *Tokenizer) readDecoder(s section) {
	switch s.typ() {
	case "WordPiece":
		t.decoder = decoder.NewWordPieceDecoder(must[string](s, "prefix"), must[bool](s, "cleanup"))
	case "ByteLevel":
		t.decoder = byteDecoder{}
	case "":
	default:
		s.only("type", "WordPiece", "ByteLevel")
	}
}

// finish derives what encoding needs.
func (t *Tokenizer) finish() {
	var raw, normalized []*added
	for _, id := range slices.Sorted(maps.Keys(t.added)) {
		if a := t.added[id]; a.Normalized {
			normalized = append(normalized, a)
		} else {
			raw = append(raw, a)
		}
	}
	t.raw, t.normalized = newMatcher(raw), newMatcher(normalized)
	before := true
	for _, p := range t.post.single {
		if p.sequence == 0 {
			before = false
		} else if before {
			t.prefix = append(t.prefix, p.ids...)
		} else {
			t.suffix = append(t.suffix, p.ids...)
		}
	}
	for id := range t.byID {
		t.size = max(t.size, int(id)+1)
	}
	for id := range t.added {
		t.size = max(t.size, int(id)+1)
	}
}
