package tokenizer

import (
	"sync"
	"unicode/utf8"
)

// wordPiece is BertNormalizer, BertPreTokenizer and WordPiece in one pass over the text.
type wordPiece struct {
	vocabulary
	normalizer *bertNormalizer
	table      *bertTable
	pieces     *trie
	whole      *words
	unk        int32
	maxChars   int // longer words are unknown

	plain [256]bool // ASCII that becomes part of a word
	lower [256]byte // and what it becomes

	scratch sync.Pool // of *[]byte, for the word at hand
}

func newWordPiece(v vocabulary, n *bertNormalizer, unk int32, prefix string, maxChars int) (*wordPiece, bool) {
	w := &wordPiece{vocabulary: v, normalizer: n, table: n.table(), unk: unk, maxChars: maxChars}
	w.scratch.New = func() any { return new([]byte) }
	for c := range rune(utf8.RuneSelf) {
		e := w.table.at(c)
		w.plain[c], w.lower[c] = e&actionMask == keep, byte(c)
		if to := e & runeMask; w.plain[c] && to != 0 {
			w.lower[c] = byte(to)
		}
	}
	w.pieces = newTrie()
	for i, piece := range v.list {
		if !w.pieces.add(headRoot, piece, v.ids[i]) {
			return nil, false
		}
		if len(piece) >= len(prefix) && piece[:len(prefix)] == prefix && !w.pieces.add(tailRoot, piece[len(prefix):], v.ids[i]) {
			return nil, false
		}
	}
	w.whole = newWords(v.list, v.ids)
	return w, true
}

// appendIDs appends the ids of text until dst has limit of them or a few more.
func (w *wordPiece) appendIDs(dst []int32, text string, limit int) []int32 {
	buf, _ := w.scratch.Get().(*[]byte)
	defer w.scratch.Put(buf)
	start, word, chars := len(dst), (*buf)[:0], 0 // chars are counted on when the word is longer than maxChars
	for i := 0; i < len(text) && len(dst) < limit; {
		// Runs of ASCII letters and digits are most of most texts.
		if run := w.run(text[i:]); run > 0 {
			if chars += run; chars <= w.maxChars {
				for _, c := range []byte(text[i : i+run]) {
					word = append(word, w.lower[c])
				}
			}
			if i += run; i == len(text) {
				break
			}
		}
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = nextRune(text[i:])
		}
		i += size
		e := w.table.at(r)
		if to := rune(e & runeMask); to != 0 {
			r = to
		}
		switch e & actionMask {
		case keep:
			if chars++; chars <= w.maxChars {
				word = utf8.AppendRune(word, r)
			}
		case expand:
			s := w.table.expansions[e&runeMask]
			if chars += utf8.RuneCountInString(s); chars <= w.maxChars {
				word = append(word, s...)
			}
		case split:
			dst = w.appendWord(dst, word, chars)
			word, chars = word[:0], 0
		case alone:
			dst = w.appendWord(dst, word, chars)
			if len(dst) < limit {
				dst = w.appendWord(dst, utf8.AppendRune(word[:0], r), 1)
			}
			word, chars = word[:0], 0
		case hard:
			*buf = word
			return w.appendHard(dst[:start], text, limit)
		}
	}
	if len(dst) < limit {
		dst = w.appendWord(dst, word, chars)
	}
	*buf = word
	return dst
}

// run is the length of the ASCII letters and digits that s starts with.
func (w *wordPiece) run(s string) int {
	for i := range len(s) {
		if !w.plain[s[i]] {
			return i
		}
	}
	return len(s)
}

// appendHard appends the ids of a text that only the slow path tokenizes exactly.
func (w *wordPiece) appendHard(dst []int32, text string, limit int) []int32 {
	tokens := w.appendTokens(nil, text, span{0, len(text)}, limit-len(dst))
	for _, t := range tokens {
		dst = append(dst, t.id)
	}
	return dst
}

// appendWord appends the ids of a normalized word of chars runes, of which there may be none.
func (w *wordPiece) appendWord(dst []int32, word []byte, chars int) []int32 {
	if chars == 0 {
		return dst
	}
	if chars > w.maxChars {
		return append(dst, w.unk)
	}
	if id := w.whole.find(word); id >= 0 {
		return append(dst, id)
	}
	start, root := len(dst), uint32(headRoot)
	for len(word) > 0 {
		id, n := w.pieces.longest(root, word)
		if n == 0 {
			return append(dst[:start], w.unk)
		}
		dst, word, root = append(dst, id), word[n:], tailRoot
	}
	return dst
}

// appendTokens is the slow path: it appends the tokens of text[at.start:at.end] with their places, until there are limit
// of them or a few more.
func (w *wordPiece) appendTokens(dst []token, text string, at span, limit int) []token {
	a := wordAligner{wordPiece: w, dst: dst, limit: limit}
	w.normalizer.normalize(text, at.start, at.end, a.add, a.full)
	a.end()
	return a.dst
}

// wordAligner is BertPreTokenizer and WordPiece on normalized runes.
type wordAligner struct {
	*wordPiece
	dst   []token
	limit int

	word  []byte
	at    []span // of each byte of word
	chars int
	all   span // of the word
	ids   []int32
}

func (a *wordAligner) full() bool { return len(a.dst) >= a.limit }

func (a *wordAligner) add(n normalRune) {
	switch {
	case a.normalizer.unicode.is(n.r, isSpace):
		a.end()
	case a.normalizer.unicode.is(n.r, isPunct):
		a.end()
		a.keep(n)
		a.end()
	default:
		a.keep(n)
	}
}

func (a *wordAligner) keep(n normalRune) {
	if a.chars == 0 {
		a.all.start = n.start
	}
	a.all.end = n.end
	if a.chars++; a.chars > a.maxChars {
		return
	}
	a.word = utf8.AppendRune(a.word, n.r)
	for len(a.at) < len(a.word) {
		a.at = append(a.at, n.span)
	}
}

// end turns the word into tokens.
func (a *wordAligner) end() {
	if a.chars > 0 && !a.full() {
		word := nextWord(a.dst)
		a.ids = a.appendWord(a.ids[:0], a.word, a.chars)
		if len(a.ids) == 1 {
			a.dst = append(a.dst, token{a.ids[0], word, "", a.all})
		} else {
			a.pieces(word)
		}
	}
	a.word, a.at, a.chars = a.word[:0], a.at[:0], 0
}

// pieces cuts the word as appendWord did, now that it is known not to be unknown.
func (a *wordAligner) pieces(number int32) {
	root, from := uint32(headRoot), 0
	for from < len(a.word) {
		id, n := a.wordPiece.pieces.longest(root, a.word[from:])
		if n == 0 { // cannot be: appendWord got through
			return
		}
		a.dst = append(a.dst, token{id, number, "", span{a.at[from].start, a.at[from+n-1].end}})
		root, from = tailRoot, from+n
	}
}
