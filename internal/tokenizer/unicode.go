package tokenizer

import (
	_ "embed" // unicode.txt
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// unicodeText is Unicode as Hugging Face's crates see it. They carry tables of several versions, so Go's own, which move
// with the toolchain, are not used: the ids must not change with the compiler.
//
//go:embed unicode.txt
var unicodeText string

// Properties of a code point, one bit each, named for the sections of unicode.txt. The canonical combining class lies
// above them.
const (
	isControl uint32 = 1 << iota // removed by clean_text
	isBlank                      // made a space by clean_text
	isSpace                      // white space
	isPunct
	isCJK
	isMark   // nonspacing mark
	isLetter // \p{L}
	isNumber // \p{N}
	isBlanks // \s of the regular expression
	isUpper  // has another lower case
	isJoined // has a decomposition

	classShift = 16
)

var propertyNames = map[string]uint32{
	"control": isControl, "blank": isBlank, "space": isSpace, "punct": isPunct, "cjk": isCJK, "mark": isMark,
	"letter": isLetter, "number": isNumber, "blanks": isBlanks, "lower": isUpper, "nfd": isJoined,
}

// runeTable holds a number for each code point, in pages of 256 of which equal ones are shared.
type runeTable struct {
	pages [(utf8.MaxRune + 1) / 256]*[256]uint32
}

func (t *runeTable) at(r rune) uint32 {
	return t.pages[uint32(r)>>8&0x1fff][r&0xff]
}

// slot is where the number of r is kept; share must not have been called.
func (t *runeTable) slot(r rune) *uint32 {
	p := &t.pages[r>>8]
	if *p == nil {
		*p = new([256]uint32)
	}
	return &(*p)[r&0xff]
}

// share fills the gaps with one page of zeros and keeps equal pages once.
func (t *runeTable) share() {
	seen := map[[256]uint32]*[256]uint32{{}: {}}
	for i, p := range t.pages {
		if p == nil {
			p = &[256]uint32{}
		}
		if seen[*p] == nil {
			seen[*p] = p
		}
		t.pages[i] = seen[*p]
	}
}

// unicodeData is unicode.txt in memory. It is never changed after it was read.
type unicodeData struct {
	properties runeTable
	lower, nfd map[rune][]rune // only of code points that change; Hangul left out
}

var loadUnicode = sync.OnceValue(func() *unicodeData {
	u := &unicodeData{lower: map[rune][]rune{}, nfd: map[rune][]rune{}}
	var section string
	for line := range strings.Lines(unicodeText) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if line[0] == '[' {
			section = strings.Trim(line, "[]")
			continue
		}
		for item := range strings.FieldsSeq(line) {
			u.add(section, item)
		}
	}
	u.properties.share()
	return u
})

// add takes in one item: 41-5a, or of the mappings 41-5a=61, or 100-12e/2=101 for every other code point. The file is
// the package's own and its form is tested, so numbers are not checked.
func (u *unicodeData) add(section, item string) {
	item, to, _ := strings.Cut(item, "=")
	item, every, _ := strings.Cut(item, "/")
	first, last, isRange := strings.Cut(item, "-")
	if !isRange {
		last = first
	}
	step := hex(every)
	if every == "" {
		step = 1
	}
	flag := propertyNames[section]
	if class, ok := strings.CutPrefix(section, "class "); ok {
		n, _ := strconv.Atoi(class)
		flag = uint32(n) << classShift
	}
	for r, end := hex(first), hex(last); r <= end; r += step {
		*u.properties.slot(r) |= flag
		switch section {
		case "lower":
			u.lower[r] = mapped(to, r-hex(first))
		case "nfd":
			u.nfd[r] = mapped(to, r-hex(first))
		}
	}
}

// mapped reads "69,307"; of a run, the target moves along with the source.
func mapped(list string, distance rune) []rune {
	var out []rune
	for s := range strings.SplitSeq(list, ",") {
		out = append(out, hex(s)+distance)
	}
	return out
}

func hex(s string) rune {
	n, _ := strconv.ParseInt(s, 16, 32)
	return rune(n)
}

func (u *unicodeData) is(r rune, properties uint32) bool { return u.properties.at(r)&properties != 0 }

// class is the canonical combining class.
func (u *unicodeData) class(r rune) uint32 { return u.properties.at(r) >> classShift }

// Hangul syllables decompose by computation (Unicode Standard, 3.12).
const (
	hangulFirst, hangulLast = 0xAC00, 0xD7A3
	leadFirst, vowelFirst   = 0x1100, 0x1161
	tailBefore              = 0x11A7
	vowels, tails           = 21, 28
)

// decompose appends the canonical decomposition of r.
func (u *unicodeData) decompose(dst []rune, r rune) []rune {
	if hangulFirst <= r && r <= hangulLast {
		s := r - hangulFirst
		dst = append(dst, leadFirst+s/(vowels*tails), vowelFirst+s/tails%vowels)
		if t := s % tails; t > 0 {
			dst = append(dst, tailBefore+t)
		}
		return dst
	}
	if u.is(r, isJoined) {
		return append(dst, u.nfd[r]...)
	}
	return append(dst, r)
}
