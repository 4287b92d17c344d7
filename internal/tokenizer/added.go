package tokenizer

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sugarme/tokenizer"
)

// added is a token that is looked for in the text itself, before any model sees it.
type added struct {
	tokenizer.AddedToken
	id      int32
	pattern string // what is looked for: the content, normalized if the token is
}

// matcher finds added tokens, the leftmost first and of those that start at one place the longest.
type matcher struct {
	byFirst [256][]*added // by the first byte, longest first
	only    int           // the one first byte, -1 if there are several
	empty   bool
	longest int // bytes of a pattern
}

func newMatcher(tokens []*added) *matcher {
	m := &matcher{only: -1, empty: true}
	for _, t := range tokens {
		if t.pattern == "" { // normalized to nothing
			continue
		}
		first := t.pattern[0]
		if m.empty {
			m.only = int(first)
		} else if m.only != int(first) {
			m.only = -1
		}
		m.empty = false
		m.longest = max(m.longest, len(t.pattern))
		m.byFirst[first] = append(m.byFirst[first], t)
	}
	for _, list := range m.byFirst {
		slices.SortStableFunc(list, func(a, b *added) int { return cmp.Compare(len(b.pattern), len(a.pattern)) })
	}
	return m
}

// find returns the first match at or after from; at is -1 if there is none.
func (m *matcher) find(text string, from int) (at int, token *added) {
	if m.empty {
		return -1, nil
	}
	for at = from; at < len(text); at++ {
		if m.only >= 0 {
			next := strings.IndexByte(text[at:], byte(m.only))
			if next < 0 {
				break
			}
			at += next
		}
		for _, t := range m.byFirst[text[at]] {
			if strings.HasPrefix(text[at:], t.pattern) {
				return at, t
			}
		}
	}
	return -1, nil
}

// splitter cuts a text into added tokens and what lies between them.
type splitter struct {
	*matcher
	text   string
	done   int    // everything before has been returned
	search int    // where the next match may start
	next   *added // found, not returned yet
	at     span   // of next
}

// piece is a part of the text: an added token, or text for the model if token is nil.
type piece struct {
	span
	token *added
}

// cut returns the next piece. Pieces of text are never empty.
func (s *splitter) cut() (p piece, ok bool) {
	if s.next != nil {
		return s.take(), true
	}
	if at, t := s.find(s.text, s.search); t != nil {
		s.match(at, t)
		if s.done < s.at.start {
			p = piece{span{s.done, s.at.start}, nil}
			s.done = s.at.start
			return p, true
		}
		return s.take(), true
	}
	s.search = len(s.text)
	if s.done < len(s.text) {
		p = piece{span{s.done, len(s.text)}, nil}
		s.done = len(s.text)
		return p, true
	}
	return piece{}, false
}

// match widens the match by the white space that its token strips. As in find_matches of Hugging Face's
// added_vocabulary.rs, the search goes on behind the token itself, whatever was stripped.
func (s *splitter) match(at int, t *added) {
	s.next, s.at, s.search = t, span{at, at + len(t.pattern)}, at+len(t.pattern)
	if t.LStrip {
		s.at.start = min(max(len(trimRight(s.text[:at])), s.done), s.at.end)
	}
	if t.RStrip {
		s.at.end = len(s.text) - len(trimLeft(s.text[s.at.end:]))
	}
}

func (s *splitter) take() piece {
	p := piece{s.at, s.next}
	s.next, s.done = nil, s.at.end
	return p
}

func trimLeft(s string) string  { return strings.TrimLeftFunc(s, isWhite) }
func trimRight(s string) string { return strings.TrimRightFunc(s, isWhite) }

func isWhite(r rune) bool { return loadUnicode().is(r, isSpace) }
