package tokenizer

import "unicode/utf8"

// byteSymbols is the alphabet of byte-level BPE: a printable character for each byte (bytes_char in Hugging Face's
// byte_level.rs). Bytes that are printable stand for themselves, the others take the code points from 256 on.
var byteSymbols, symbolBytes = func() (symbols [256]rune, bytes map[rune]byte) {
	bytes = map[rune]byte{}
	next := rune(256)
	for b := range rune(256) {
		symbols[b] = b
		if b < '!' || b > '~' && b < 0xa1 || b == 0xad {
			symbols[b] = next
			next++
		}
		bytes[symbols[b]] = byte(b)
	}
	return symbols, bytes
}()

// rawBytes turns a token of the vocabulary into the bytes that it stands for; ok is false if it has other symbols.
func rawBytes(token string) (raw []byte, ok bool) {
	for _, r := range token {
		b, ok := symbolBytes[r]
		if !ok {
			return nil, false
		}
		raw = append(raw, b)
	}
	return raw, true
}

// byteSplitter cuts text as the regular expression of GPT-2 does:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
type byteSplitter struct {
	properties *runeTable
	ascii      [utf8.RuneSelf]uint32
}

const charClass = isLetter | isNumber | isBlanks // no bit set: one of the others

func newByteSplitter(u *unicodeData) *byteSplitter {
	s := &byteSplitter{properties: &u.properties}
	for c := range rune(utf8.RuneSelf) {
		s.ascii[c] = u.properties.at(c) & charClass
	}
	return s
}

// class returns the class of the first character of text, and its size.
func (s *byteSplitter) class(text string) (class uint32, size int) {
	if c := text[0]; c < utf8.RuneSelf {
		return s.ascii[c], 1
	}
	r, size := nextRune(text)
	return s.properties.at(r) & charClass, size
}

// run is the length of the characters of one class that text starts with.
func (s *byteSplitter) run(text string, class uint32) int {
	n := 0
	for n < len(text) {
		c, size := s.class(text[n:])
		if c != class {
			break
		}
		n += size
	}
	return n
}

// word is the length of the first word of text, which is not empty.
func (s *byteSplitter) word(text string) int {
	space := 0
	switch text[0] {
	case '\'':
		if n := contraction(text); n > 0 {
			return n
		}
	case ' ':
		space = 1
	}
	if space < len(text) {
		class, size := s.class(text[space:])
		if class != isBlanks {
			return space + size + s.run(text[space+size:], class)
		}
	}
	// White space: all of it, except the last character where something follows that may begin with a space.
	n := s.run(text, isBlanks)
	if n == len(text) {
		return n
	}
	_, last := utf8.DecodeLastRuneInString(text[:n])
	if n > last {
		return n - last
	}
	return n
}

// contraction is the length of the English ending that text starts with.
func contraction(text string) int {
	if len(text) < 2 {
		return 0
	}
	switch text[1] {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if len(text) > 2 && text[2] == 'e' {
			return 3
		}
	case 'l':
		if len(text) > 2 && text[2] == 'l' {
			return 3
		}
	}
	return 0
}
