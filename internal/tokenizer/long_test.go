package tokenizer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// randomBPE has merges that no training would give, over a few letters.
func randomBPE(r *rand.Rand, letters, n int) *byteBPE {
	m := &byteBPE{split: newByteSplitter(loadUnicode()), useRegex: true, merges: newMerges(n)}
	m.byID = map[int32]string{}
	m.scratch.New = func() any { return new(merging) }
	ids := map[string]int32{}
	for i := range letters {
		c := byte('a' + i)
		m.symbols[c], m.byID[int32(i)], ids[string(c)] = int32(i), string(c), int32(i)
	}
	for rank := range n {
		left, right := r.Int32N(int32(len(m.byID))), r.Int32N(int32(len(m.byID)))
		content := m.byID[left] + m.byID[right]
		if _, known := ids[content]; !known {
			ids[content] = int32(len(ids))
			m.byID[ids[content]] = content
		}
		m.merges.add(left, right, merge{uint32(rank), ids[content]})
	}
	m.whole = newWords(nil, nil)
	return m
}

// TestLongWords: looking through all pairs, the queue, and windows of any size come to the same.
func TestLongWords(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	whole, windows := 0, 0
	for range 300 {
		letters := 1 + r.IntN(4)
		m := randomBPE(r, letters, 1+r.IntN(40))
		word := make([]byte, 1+r.IntN(400))
		for i := range word {
			word[i] = byte('a' + r.IntN(letters))
			if period := 1 + r.IntN(20); i >= period && r.IntN(8) > 0 {
				word[i] = word[i-period]
			}
		}
		s := &merging{}
		want := leftmost(m, string(word))
		m.mergeQueued(string(word), s)
		if !slices.Equal(s.ids, want) {
			t.Fatalf("%s: the queue gives %v, want %v", word, s.ids, want)
		}
		if m.merge(string(word[:min(few, len(word))]), s); !slices.Equal(s.ids, leftmost(m, string(word[:min(few, len(word))]))) {
			t.Fatalf("%s: a short word gives %v", word[:min(few, len(word))], s.ids)
		}
		for _, m.window = range []int{4, 16, 64} {
			if len(word) <= m.window {
				continue
			}
			windows++
			if got := m.appendLong(nil, string(word), math.MaxInt, s); !slices.Equal(got, want) {
				t.Fatalf("%s: windows of %d give %v, want %v", word, m.window, got, want)
			}
			n := r.IntN(len(want))
			got := m.appendLong(nil, string(word), n, s)
			if len(got) < n || !slices.Equal(got, want[:len(got)]) {
				t.Fatalf("%s: windows of %d up to %d give %v, want %v", word, m.window, n, got, want)
			}
		}
		whole += len(want)
	}
	t.Logf("%d words in windows, %d tokens", windows, whole)
}

// leftmost merges as the definition says: the pair of lowest rank, of those the leftmost, until there is none.
func leftmost(m *byteBPE, word string) []int32 {
	var ids []int32
	for i := range len(word) {
		ids = append(ids, m.symbols[word[i]])
	}
	for {
		at, best := -1, merge{rank: noRank}
		for i := range len(ids) - 1 {
			if to := m.merges.find(ids[i], ids[i+1]); to.rank < best.rank {
				at, best = i, to
			}
		}
		if at < 0 {
			return ids
		}
		ids = slices.Replace(ids, at, at+2, best.id)
	}
}

// TestConcurrent: one tokenizer for all goroutines. The race detector looks on.
func TestConcurrent(t *testing.T) {
	for _, name := range tiny {
		tok := load(t, tinyPath(name))
		rows, maxLength := tinyRows(t, name)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for _, want := range rows {
					if want.Pair != nil {
						continue
					}
					if got := tok.AppendIDs(nil, want.Text, maxLength); !slices.Equal(got, want.IDs) {
						t.Errorf("%q: got %v, want %v", want.Text, got, want.IDs)
					}
					if got := fmt.Sprint(tok.Encode(want.Text, maxLength).Ids); got != fmt.Sprint(want.IDs) {
						t.Errorf("%q: got %v, want %v", want.Text, got, want.IDs)
					}
				}
			})
		}
		wg.Wait()
	}
}

// TestChunks: where the normalized text is looked through for added tokens, it does not matter in what chunks.
func TestChunks(t *testing.T) {
	tok := load(t, write(t, "wordpiece", func(f map[string]any) {
		list, _ := f["added_tokens"].([]any)
		for _, a := range list {
			a.(map[string]any)["normalized"] = true
		}
	}))
	rows, _ := tinyRows(t, "wordpiece")
	var all string
	texts := []string{"  <e>  <e><e> duratun  \u00e9<E> durat\u00fcne  DURATUNE"}
	for _, r := range rows {
		texts = append(texts, r.Text)
		all += r.Text
	}
	for _, text := range append(texts, all) {
		want := tok.appendTokens(nil, text, math.MaxInt, math.MaxInt)
		for _, chunk := range []int{1, 2, 7, 50} {
			got := tok.appendTokens(nil, text, math.MaxInt, chunk)
			same := slices.EqualFunc(got, want, func(a, b token) bool { return a.id == b.id && a.word == b.word })
			if !same {
				t.Errorf("%+q: chunks of %d give\n%v, want\n%v", text, chunk, got, want)
			}
		}
	}
}
