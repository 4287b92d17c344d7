package tokenizer

import (
	"math/rand/v2"
	"strings"
	"unicode"
	"unicode/utf8"
)

// drawer makes up texts that are hard on a tokenizer: words put together from the vocabulary's pieces and from letters of
// many scripts, with accents that stand alone or precomposed, odd white space, special tokens, and code points of every kind.
type drawer struct {
	*rand.Rand
	pieces, foreign []string // of the vocabulary; foreign are those not in ASCII
	added           []string
}

// scripts from which words are drawn, in ranges of code points.
var scripts = [][2]rune{
	{'a', 'z'}, {'A', 'Z'}, {0xc0, 0x24f}, {0x250, 0x2af}, {0x370, 0x3ff}, {0x400, 0x52f}, {0x531, 0x58f}, {0x5d0, 0x5ea}, {0x620, 0x6ff},
	{0x700, 0x74f}, {0x780, 0x7b1}, {0x7c0, 0x7fa}, {0x900, 0x97f}, {0x980, 0x9fe}, {0xa01, 0xa76}, {0xa81, 0xaff}, {0xb01, 0xb77},
	{0xb82, 0xbfa}, {0xc00, 0xc7f}, {0xc80, 0xcf2}, {0xd00, 0xd7f}, {0xd82, 0xdf4}, {0xe01, 0xe5b}, {0xe81, 0xedf}, {0xf00, 0xfda},
	{0x1000, 0x109f}, {0x10a0, 0x10ff}, {0x1100, 0x11ff}, {0x1200, 0x139f}, {0x13a0, 0x13ff}, {0x1401, 0x167f}, {0x1780, 0x17f9},
	{0x1800, 0x18aa}, {0x1e00, 0x1fff}, {0x2100, 0x218b}, {0x2c00, 0x2dff}, {0x3041, 0x30ff}, {0x3105, 0x31ff}, {0x4e00, 0x9fff},
	{0xa640, 0xa7ff}, {0xa8e0, 0xa8ff}, {0xab30, 0xabbf}, {0xac00, 0xd7a3}, {0xf900, 0xfaff}, {0xfb00, 0xfdff}, {0xfe70, 0xfeff},
	{0xff01, 0xffee}, {0x10400, 0x1049d}, {0x104b0, 0x104fb}, {0x10c80, 0x10cff}, {0x11000, 0x1106f}, {0x118a0, 0x118ff},
	{0x16e40, 0x16e9a}, {0x1d000, 0x1d7ff}, {0x1e900, 0x1e95f}, {0x1f300, 0x1f9ff}, {0x20000, 0x2a6df}, {0x2b700, 0x2ceaf}, {0x2f800, 0x2fa1d},
}

// marks combine with the letter before, in many classes.
var marks = [][2]rune{{0x300, 0x36f}, {0x483, 0x489}, {0x591, 0x5c7}, {0x610, 0x61a}, {0x64b, 0x65f}, {0x93c, 0x94d}, {0xe34, 0xe4e},
	{0xf71, 0xf84}, {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x20d0, 0x20f0}, {0x3099, 0x309a}, {0xfe20, 0xfe2f}, {0x1d165, 0x1d172}, {0x1e8d0, 0x1e8d6}}

var blanks = []string{" ", " ", " ", "  ", "   ", "\n", "\t", "\r\n", "\n\n ", " \t ", "\u00a0", "\u00a0\u00a0", "\u2003", "\u3000", "\u2028",
	"\v", "\f", "\u0085", "\x1c", "\u180e", "\u200b", "\ufeff", "\u1680", "\u202f", " \u00a0 "}

var odd = []string{"'s", "'S", "'ll", "'ve", "'re", "'t", "'d", "'m", "’s", "''", "...", "!!!", "?!", "--", "£1", "$5", "€9.99", "1,000", "#1", "@me",
	"http://a.bc/d?e=f&g", "x@y.zz", ":-)", "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1ea\U0001f1fa", "e\u0301", "\u00c5", "A\u030a", "\u212b",
	"\u0130", "\u0131", "\u00df", "\u1e9e", "\u03a3\u03c2\u03c3", "\u01c5", "\ufb03", "\u0149", "\u01f0", "\u0344", "\u1fb7", "\u0958", "\uac01", "\u1100\u1161\u11a8",
	"\x00", "\x7f", "\ufffd", "\ue000", "\U000f0000", "\ufffe", "\U0010ffff", "\u00ad", "\u2062"}

func newDrawer(r *rand.Rand, t *Tokenizer) *drawer {
	d := &drawer{Rand: r}
	for id := range int32(t.VocabSize()) {
		piece, ok := t.byID[id]
		if !ok {
			continue
		}
		piece = strings.TrimPrefix(piece, "##")
		if t.kind == "BPE" {
			piece = strings.ReplaceAll(piece, "Ġ", " ")
		}
		d.pieces = append(d.pieces, piece)
		if strings.ContainsFunc(piece, func(r rune) bool { return r >= utf8.RuneSelf }) {
			d.foreign = append(d.foreign, piece)
		}
	}
	for _, a := range t.added {
		d.added = append(d.added, a.Content)
	}
	return d
}

func (d *drawer) pick(list []string) string { return list[d.IntN(len(list))] }

func (d *drawer) in(ranges [][2]rune) rune {
	r := ranges[d.IntN(len(ranges))]
	return r[0] + d.Int32N(r[1]-r[0]+1)
}

// rune is any code point but a surrogate, half of them from the first plane.
func (d *drawer) rune() rune {
	r := d.Int32N(utf8.MaxRune + 1)
	if d.IntN(2) == 0 {
		r = d.Int32N(0x10000)
	}
	if !utf8.ValidRune(r) {
		return 'x'
	}
	return r
}

func (d *drawer) text() string {
	var b strings.Builder
	for range d.IntN(12) {
		d.word(&b)
		if d.IntN(6) > 0 {
			b.WriteString(d.pick(blanks))
		}
	}
	return b.String()
}

func (d *drawer) word(b *strings.Builder) {
	switch n := d.IntN(20); {
	case n < 6: // of the vocabulary's pieces, most of them in several again
		for range 1 + d.IntN(4) {
			b.WriteString(d.cased(d.pick(d.pieces)))
		}
	case n < 9:
		for range 1 + d.IntN(5) {
			b.WriteString(d.cased(d.pick(d.foreign)))
		}
	case n < 13: // of one script
		s := scripts[d.IntN(len(scripts))]
		for range 1 + d.IntN(8) {
			b.WriteRune(s[0] + d.Int32N(s[1]-s[0]+1))
			for d.IntN(6) == 0 {
				b.WriteRune(d.in(marks))
			}
		}
	case n < 15: // of several
		for range 1 + d.IntN(6) {
			b.WriteRune(d.in(scripts))
		}
	case n < 17:
		b.WriteString(d.pick(odd))
	case n < 18:
		b.WriteString(d.pick(d.added))
	case n < 19:
		for range 1 + d.IntN(6) {
			b.WriteRune(d.rune())
		}
	default: // long, of one letter or a few
		letters := []rune{d.in(scripts), rune('a' + d.IntN(26)), d.rune()}
		for range d.IntN(130) {
			b.WriteRune(letters[max(0, d.IntN(8)-5)])
		}
	}
}

// cased changes the case of some words.
func (d *drawer) cased(s string) string {
	switch d.IntN(6) {
	case 0:
		return strings.ToUpper(s)
	case 1:
		r, size := utf8.DecodeRuneInString(s)
		return string(unicode.ToTitle(r)) + s[size:]
	default:
		return s
	}
}
