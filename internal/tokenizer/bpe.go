package tokenizer

import (
	"math"
	"math/bits"
	"sync"
	"unicode/utf8"
)

// byteBPE is the ByteLevel pre-tokenizer and BPE over its alphabet.
type byteBPE struct {
	vocabulary
	split       *byteSplitter
	prefixSpace bool // a space is put before text that has none
	useRegex    bool // else the text is one word

	symbols [256]int32 // of each byte
	merges  *merges
	whole   *words // words that are one token
	longest int    // of these, in bytes
	window  int    // longer words are merged piecemeal

	scratch sync.Pool // of *merging
}

// merges finds what two neighbouring tokens become, in an open hash table.
type merges struct {
	slots []mergeSlot // a power of two of them, at most half full
}

type mergeSlot struct {
	pair uint64 // left id plus one, right id
	merge
}

// merge is the token that two become. The lowest rank goes first.
type merge struct {
	rank uint32
	id   int32
}

const noRank = math.MaxUint32

func newMerges(n int) *merges {
	return &merges{make([]mergeSlot, 1<<bits.Len(uint(2*n)))}
}

func (m *merges) slot(left, right int32) *mergeSlot {
	pair := uint64(left+1)<<32 | uint64(right)
	at := pair * 0x9e3779b97f4a7c15 >> 32
	for {
		s := &m.slots[at&uint64(len(m.slots)-1)]
		if s.pair == pair || s.pair == 0 {
			return s
		}
		at++
	}
}

func (m *merges) add(left, right int32, to merge) {
	s := m.slot(left, right)
	s.pair, s.merge = uint64(left+1)<<32|uint64(right), to
}

// find returns what the two become; the rank is noRank if they stay.
func (m *merges) find(left, right int32) merge {
	if s := m.slot(left, right); s.pair != 0 {
		return s.merge
	}
	return merge{rank: noRank}
}

// merging is the memory for merging one word.
type merging struct {
	word  []byte
	ids   []int32
	next  []merge // of ids[i] and ids[i+1]
	chain []link
	queue []uint64

	before, after []int32 // of two windows
}

// appendIDs appends the ids of text. What is not UTF-8 is replaced word by word.
func (m *byteBPE) appendIDs(dst []int32, text string, limit int) []int32 {
	s, _ := m.scratch.Get().(*merging)
	defer m.scratch.Put(s)
	text = m.prefixed(text)
	valid := utf8.ValidString(text)
	for len(text) > 0 && len(dst) < limit {
		n := len(text)
		if m.useRegex {
			n = m.split.word(text)
		}
		word := text[:n]
		if !valid {
			word = replaceInvalid(word)
		}
		dst = m.appendWord(dst, word, limit, s)
		text = text[n:]
	}
	return dst
}

// prefixed puts the space of add_prefix_space before the text.
func (m *byteBPE) prefixed(text string) string {
	if m.prefixSpace && text != "" && text[0] != ' ' {
		return " " + text
	}
	return text
}

// appendWord appends the ids of a word. Of a very long one, those beyond the limit are left out.
func (m *byteBPE) appendWord(dst []int32, word string, limit int, s *merging) []int32 {
	if len(word) <= m.longest {
		s.word = append(s.word[:0], word...)
		if id := m.whole.find(s.word); id >= 0 {
			return append(dst, id)
		}
	}
	if len(word) > m.window {
		return m.appendLong(dst, word, limit, s)
	}
	m.merge(word, s)
	return append(dst, s.ids...)
}

// few is the number of bytes up to which looking through all pairs is faster than a queue.
const few = 48

// merge merges the word into s.ids, always the pair of lowest rank and of those the leftmost.
func (m *byteBPE) merge(word string, s *merging) {
	if len(word) > few {
		m.mergeQueued(word, s)
		return
	}
	s.ids, s.next = s.ids[:0], s.next[:0]
	for i := range len(word) {
		s.ids = append(s.ids, m.symbols[word[i]])
	}
	for i := range len(s.ids) - 1 {
		s.next = append(s.next, m.merges.find(s.ids[i], s.ids[i+1]))
	}
	for {
		at, best := -1, uint32(noRank)
		for i, n := range s.next {
			if n.rank < best {
				at, best = i, n.rank
			}
		}
		if at < 0 {
			return
		}
		s.ids[at] = s.next[at].id
		s.ids = append(s.ids[:at+1], s.ids[at+2:]...)
		s.next = append(s.next[:at], s.next[at+1:]...)
		if at > 0 {
			s.next[at-1] = m.merges.find(s.ids[at-1], s.ids[at])
		}
		if at < len(s.next) {
			s.next[at] = m.merges.find(s.ids[at], s.ids[at+1])
		}
	}
}

// link is a token of the word in a doubly linked list.
type link struct {
	id         int32
	prev, next int32
	dead       bool // merged into the one before
}

// mergeQueued does the same with a queue of pairs, in which some are out of date.
func (m *byteBPE) mergeQueued(word string, s *merging) {
	s.chain, s.queue = s.chain[:0], s.queue[:0]
	for i := range len(word) {
		s.chain = append(s.chain, link{m.symbols[word[i]], int32(i - 1), int32(i + 1), false})
	}
	for i := range len(word) - 1 {
		m.enqueue(s, int32(i))
	}
	for len(s.queue) > 0 {
		top := s.pop()
		at, rank := int32(top&math.MaxUint32), uint32(top>>32)
		left := &s.chain[at]
		if left.dead || int(left.next) >= len(word) {
			continue
		}
		right := &s.chain[left.next]
		to := m.merges.find(left.id, right.id)
		if to.rank != rank { // one of the two has changed since
			continue
		}
		left.id, left.next, right.dead = to.id, right.next, true
		if int(left.next) < len(word) {
			s.chain[left.next].prev = at
			m.enqueue(s, at)
		}
		if left.prev >= 0 {
			m.enqueue(s, left.prev)
		}
	}
	s.ids = s.ids[:0]
	for i := int32(0); int(i) < len(word); i = s.chain[i].next {
		s.ids = append(s.ids, s.chain[i].id)
	}
}

// enqueue puts the pair that starts at a place into the queue, a heap with the lowest rank, then place, on top.
func (m *byteBPE) enqueue(s *merging, at int32) {
	to := m.merges.find(s.chain[at].id, s.chain[s.chain[at].next].id)
	if to.rank == noRank {
		return
	}
	s.queue = append(s.queue, uint64(to.rank)<<32|uint64(uint32(at)))
	q := s.queue
	for i := len(q) - 1; i > 0; {
		parent := (i - 1) / 2
		if q[parent] <= q[i] {
			break
		}
		q[parent], q[i] = q[i], q[parent]
		i = parent
	}
}

func (s *merging) pop() uint64 {
	q := s.queue
	top, last := q[0], len(q)-1
	q[0] = q[last]
	q = q[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && q[child+1] < q[child] {
			child++
		}
		if q[i] <= q[child] {
			break
		}
		q[i], q[child] = q[child], q[i]
		i = child
	}
	s.queue = q
	return top
}

// appendLong merges a word piecemeal, in memory that does not grow with it.
//
// A sequence of tokens is what a word merges into if and only if any two neighbours, merged by themselves, stay as they
// are: the first merge across their boundary would come about between the two by themselves as well. So a window is
// merged, and cut before its end; the next window starts at the cut, and the tokens on both sides of it must fit. Where
// no cut fits, which no vocabulary in use has been seen to need, the word is merged as a whole. Ids within the limit are
// certain only when all pairs have been seen, so the word is gone through to its end.
func (m *byteBPE) appendLong(dst []int32, word string, limit int, s *merging) []int32 {
	start := len(dst)
	m.merge(word[:m.window], s)
	for at := 0; len(word)-at > m.window; {
		cut, n := m.cut(word, at, s)
		if cut < 0 {
			m.merge(word, s)
			dst = dst[:start]
			break
		}
		if len(dst) < limit {
			dst = append(dst, s.before[:n]...)
		}
		at = cut
	}
	if len(dst) < limit {
		dst = append(dst, s.ids...)
	}
	return dst
}

// cut finds the end of the first n tokens of the window at a place, which it puts into s.before, such that they fit the
// window behind them, whose tokens it puts into s.ids. It returns -1 if there is none.
func (m *byteBPE) cut(word string, at int, s *merging) (cut, n int) {
	s.before = append(s.before[:0], s.ids...)
	end, tries := at+m.window, 8
	for n = len(s.before); n > 0 && tries > 0; n-- {
		last := m.length(s.before[n-1])
		if end <= at+m.window*3/4 { // the tokens at the window's end are wrong more often than not
			tries--
			m.merge(word[end:min(end+m.window, len(word))], s)
			s.after = append(s.after[:0], s.ids...)
			m.merge(word[end-last:end+m.length(s.after[0])], s)
			if len(s.ids) == 2 && s.ids[0] == s.before[n-1] {
				s.ids = append(s.ids[:0], s.after...)
				return end, n
			}
		}
		end -= last
	}
	return -1, 0
}

// appendTokens appends the tokens of text[at.start:at.end], which is valid UTF-8.
func (m *byteBPE) appendTokens(dst []token, text string, at span, limit int) []token {
	s, _ := m.scratch.Get().(*merging)
	defer m.scratch.Put(s)
	var ids []int32
	rest := m.prefixed(text[at.start:at.end])
	from := at.end - len(rest) // of rest in text; with a space before it, one before at.start
	for len(rest) > 0 && len(dst) < limit {
		n := len(rest)
		if m.useRegex {
			n = m.split.word(rest)
		}
		ids = m.appendWord(ids[:0], rest[:n], limit-len(dst), s)
		word := nextWord(dst)
		start := from
		for _, id := range ids {
			end := start + m.length(id)
			dst = append(dst, token{id, word, "", wholeRunes(text, span{start, end}, at)})
			start = end
		}
		rest, from = rest[n:], from+n
	}
	return dst
}

// wholeRunes widens a span to the whole characters that it has bytes of. The space of add_prefix_space belongs to the first
// character.
func wholeRunes(text string, s, within span) span {
	s.start, s.end = max(s.start, within.start), max(s.end, within.start+1)
	for !utf8.RuneStart(text[s.start]) {
		s.start--
	}
	for s.end < len(text) && !utf8.RuneStart(text[s.end]) {
		s.end++
	}
	return s
}

// length is the number of bytes that a token stands for.
func (m *byteBPE) length(id int32) int { return utf8.RuneCountInString(m.byID[id]) }
