package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// replaceInvalid puts one U+FFFD for as many bytes as begin a character that does not go on, as Python's and Rust's decoders
// do. (strings.ToValidUTF8 puts one for all that are next to each other, and a range over a string one for each byte.)
func replaceInvalid(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var s strings.Builder
	for i := 0; i < len(text); {
		r, n := nextRune(text[i:])
		s.WriteRune(r)
		i += n
	}
	return s.String()
}

// nextRune is the first character of text as replaceInvalid reads it, and its size in text.
func nextRune(text string) (r rune, n int) {
	r, n = utf8.DecodeRuneInString(text)
	if r == utf8.RuneError && n == 1 {
		for n < len(text) && !utf8.FullRuneInString(text[:n+1]) {
			n++
		}
	}
	return r, n
}

// runeIndex gives for each byte of a text, and for its end, the number of characters before it.
func runeIndex(text string) []int {
	at := make([]int, 0, len(text)+1)
	n := 0
	for i := 0; i < len(text); n++ {
		_, size := nextRune(text[i:])
		for range size {
			at = append(at, n)
		}
		i += size
	}
	return append(at, n)
}

// restore turns the spans of replaceInvalid(text) into those of the text itself.
func restore(text string, tokens []token) {
	var at []int // of each byte of the valid text, and of its end
	for i := 0; i < len(text); {
		r, n := nextRune(text[i:])
		for range utf8.RuneLen(r) {
			at = append(at, i)
		}
		i += n
	}
	at = append(at, len(text))
	for i := range tokens {
		tokens[i].span = span{at[tokens[i].start], at[tokens[i].end]}
	}
}
