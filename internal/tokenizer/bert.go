package tokenizer

import (
	"cmp"
	"slices"
	"sync"
)

// span is a range of bytes of the text.
type span struct{ start, end int }

// normalRune is one rune of the normalized text and the bytes of the text that it stands for.
type normalRune struct {
	r rune
	span
}

// bertNormalizer is Hugging Face's BertNormalizer, rune by rune.
type bertNormalizer struct {
	clean, cjk, strip, lower bool
	unicode                  *unicodeData
}

// normalizing is the work on one text.
type normalizing struct {
	*bertNormalizer
	emit func(normalRune)

	run     []decomposed // from a starter on, not sorted yet
	sources []span       // of the runes of which the run is made
	last    span         // the last one that was given to a rune
	buf     []rune
}

// maxRun bounds the memory for marks in a row. Unicode's stream-safe format, for comparison, has at most 30.
const maxRun = 1 << 14

// decomposed is a rune of the run. It is added if it is not the first of its decomposition.
type decomposed struct {
	r     rune
	class uint32
	added bool
}

// normalize emits the normalized runes of text[base:end] in order. done is asked before each rune.
func (n *bertNormalizer) normalize(text string, base, end int, emit func(normalRune), done func() bool) {
	w := normalizing{bertNormalizer: n, emit: emit}
	for i := base; i < end && !done(); {
		r, size := nextRune(text[i:end])
		w.add(r, span{i, i + size})
		i += size
	}
	w.flush()
}

// add takes in a rune: clean_text, then handle_chinese_chars, then the rest.
func (w *normalizing) add(r rune, at span) {
	if w.clean {
		if w.unicode.is(r, isControl) {
			return
		}
		if w.unicode.is(r, isBlank) {
			r = ' '
		}
	}
	if w.cjk && w.unicode.is(r, isCJK) {
		w.decompose(' ', at)
		w.decompose(r, at)
		w.decompose(' ', at)
		return
	}
	w.decompose(r, at)
}

// decompose brings the rune into canonical decomposition, the first half of strip_accents. Marks are sorted by their
// classes, up to the next starter.
func (w *normalizing) decompose(r rune, at span) {
	if !w.strip {
		w.finish(r, at)
		return
	}
	w.buf = w.unicode.decompose(w.buf[:0], r)
	for i, d := range w.buf {
		class := w.unicode.class(d)
		if class == 0 || len(w.run) >= maxRun {
			w.flush()
		}
		if i == 0 {
			w.sources = append(w.sources, at)
		}
		w.run = append(w.run, decomposed{d, class, i > 0})
	}
}

// flush sorts the run and passes it on. Hugging Face tells apart added and replaced runes only, so after sorting the
// places go to whichever runes now stand there, not to those that they came from.
func (w *normalizing) flush() {
	if len(w.run) > 1 {
		slices.SortStableFunc(w.run, func(a, b decomposed) int { return cmp.Compare(a.class, b.class) })
	}
	used := 0
	for _, d := range w.run {
		if !d.added {
			w.last = w.sources[used]
			used++
		}
		if !w.unicode.is(d.r, isMark) {
			w.finish(d.r, w.last)
		}
	}
	w.run, w.sources = w.run[:0], w.sources[:0]
}

// finish lowers the rune and emits it.
func (w *normalizing) finish(r rune, at span) {
	if w.lower && w.unicode.is(r, isUpper) {
		for _, l := range w.unicode.lower[r] {
			w.emit(normalRune{l, at})
		}
		return
	}
	w.emit(normalRune{r, at})
}

// What the fast path does with a code point, in the upper bits of its number in the table. The lower 21 hold a rune, 0
// for the code point itself, or for expand the place in the list of expansions.
const (
	keep   uint32 = iota << 24 // becomes part of a word
	drop                       // vanishes
	split                      // ends a word
	alone                      // is a word of its own
	expand                     // becomes several runes of a word
	hard                       // depends on its neighbours: only the slow path is right

	actionMask = 0xff << 24
	runeMask   = 0x1fffff
)

// bertTable says for each code point what normalizer and BertPreTokenizer make of it.
type bertTable struct {
	runeTable
	expansions []string
}

// bertTables has the table of each normalizer that there can be, made when it is first asked for.
var bertTables = func() (all [16]func() *bertTable) {
	for i := range all {
		all[i] = sync.OnceValue(func() *bertTable {
			n := bertNormalizer{clean: i&1 != 0, cjk: i&2 != 0, strip: i&4 != 0, lower: i&8 != 0, unicode: loadUnicode()}
			return n.newTable()
		})
	}
	return all
}()

func (n *bertNormalizer) table() *bertTable {
	i := 0
	for bit, set := range []bool{n.clean, n.cjk, n.strip, n.lower} {
		if set {
			i |= 1 << bit
		}
	}
	return bertTables[i]()
}

// newTable runs the slow path on each code point that does not simply become part of a word.
func (n *bertNormalizer) newTable() *bertTable {
	t := &bertTable{}
	for page, properties := range n.unicode.properties.pages {
		for low, p := range properties {
			if p&^(isLetter|isNumber|isBlanks) != 0 {
				n.tabulate(t, rune(page<<8|low))
			}
		}
	}
	for r := rune(hangulFirst); r <= hangulLast && n.strip; r++ {
		n.tabulate(t, r)
	}
	t.share()
	return t
}

func (n *bertNormalizer) tabulate(t *bertTable, r rune) {
	var out []rune
	var punct, space, marks, apart int
	w := normalizing{bertNormalizer: n, emit: func(o normalRune) {
		switch {
		case n.unicode.is(o.r, isSpace):
			space++
			return
		case n.unicode.is(o.r, isPunct):
			punct++
		case n.strip && n.unicode.class(o.r) > 0: // it may have to move
			marks++
		}
		out = append(out, o.r)
	}}
	if n.cjk && n.unicode.is(r, isCJK) {
		apart = 1
	}
	w.add(r, span{})
	w.flush()
	switch e := t.slot(r); {
	case marks > 0, len(out) > 1 && punct+space > 0:
		*e = hard
	case len(out) == 0 && space > 0:
		*e = split
	case len(out) == 0:
		*e = drop
	case len(out) > 1:
		*e = expand | uint32(len(t.expansions))
		t.expansions = append(t.expansions, string(out))
	case punct+apart > 0:
		*e = alone | uint32(out[0])
	case space > 0:
		*e = hard
	default:
		*e = keep | uint32(out[0])
	}
}

// normalized is the whole of a text, normalized.
func (n *bertNormalizer) normalized(text string) string {
	var out []rune
	n.normalize(text, 0, len(text), func(r normalRune) { out = append(out, r.r) }, func() bool { return false })
	return string(out)
}
