package dataset

import (
	"context"
	"fmt"
	"io"
	"iter"
	"runtime"

	"github.com/apache/arrow/go/v17/arrow/memory"
	"golang.org/x/sync/errgroup"
)

// Encoder turns a text, or a pair of texts, into token ids. It is called from several goroutines at once.
type Encoder interface {
	// AppendIDs appends the ids of text, special tokens included, cut to maxLength ids.
	AppendIDs(dst []int32, text string, maxLength int) []int32
	// AppendPair appends the ids of two texts as one sequence, special tokens included, cut to maxLength ids, and the token
	// type of each.
	AppendPair(ids []int32, types []int8, text, pair string, maxLength int) ([]int32, []int8)
}

// TokenStats describes tokenized rows.
type TokenStats struct {
	Rows      int   `json:"rows"`
	Tokens    int64 `json:"tokens"`    // special tokens included, padding not
	Truncated int   `json:"truncated"` // rows cut at the maximum length
	Lengths   []int `json:"lengths"`   // rows by number of tokens, from 0 to the longest
}

// Add returns the stats of the rows of s and t together.
func (s TokenStats) Add(t TokenStats) TokenStats {
	lengths := make([]int, max(len(s.Lengths), len(t.Lengths)))
	copy(lengths, s.Lengths)
	for i, n := range t.Lengths {
		lengths[i] += n
	}
	return TokenStats{s.Rows + t.Rows, s.Tokens + t.Tokens, s.Truncated + t.Truncated, lengths}
}

func (s *TokenStats) count(n int, truncated bool) {
	s.Rows++
	s.Tokens += int64(n)
	if truncated {
		s.Truncated++
	}
	for len(s.Lengths) <= n {
		s.Lengths = append(s.Lengths, 0)
	}
	s.Lengths[n]++
}

// Tokenize encodes rows and writes them to w as an Arrow file: input_ids list<int32> unpadded, label int64, row int64 and, of
// pairs, token_type_ids list<int8>.
// Encoding runs on all cores; rows, batches and bytes come out in the order of the rows all the same. progress (may be
// nil) is told the rows written so far.
func Tokenize(ctx context.Context, rows iter.Seq2[Row, error], enc Encoder, maxLength int, w io.Writer, progress func(rows int)) (TokenStats, error) {
	if progress == nil {
		progress = func(int) {}
	}
	t := tokenizer{enc: enc, maxLength: maxLength, mem: memory.NewGoAllocator(), progress: progress}
	return t.run(ctx, rows, w)
}

// tokenizer is one Tokenize.
type tokenizer struct {
	enc       Encoder
	maxLength int
	mem       memory.Allocator
	progress  func(int)
}

// chunk is the rows of one record batch on their way through the workers.
type chunk struct {
	rows      []Row
	ids       []int32 // of all rows, one after the other
	types     []int8  // of pairs, one an id
	ends      []int
	truncated []bool
	done      chan error
}

// pairs reports whether the rows are pairs: all of a data set are, or none.
func (c *chunk) pairs() bool { return c.rows[0].Pair != "" }

// run connects reader, workers and writer: every chunk goes to the workers through work and, in order, to the writer
// through order.
func (t *tokenizer) run(ctx context.Context, rows iter.Seq2[Row, error], w io.Writer) (stats TokenStats, err error) {
	out := tokenWriter{w: w, mem: t.mem}
	cores := runtime.GOMAXPROCS(0)
	work, order := make(chan *chunk, cores), make(chan *chunk, 2*cores)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(work)
		defer close(order)
		return chunks(ctx, rows, func(c *chunk) error {
			for _, to := range []chan *chunk{order, work} {
				select {
				case to <- c:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	})
	for range cores {
		group.Go(func() error {
			for c := range work {
				c.done <- t.encode(c)
			}
			return nil
		})
	}
	group.Go(func() error { return t.write(ctx, order, &out, &stats) })
	err = group.Wait()
	if closeErr := out.close(); err == nil {
		err = closeErr
	}
	return stats, err
}

// chunks cuts rows into batches.
func chunks(ctx context.Context, rows iter.Seq2[Row, error], emit func(*chunk) error) error {
	next := &chunk{}
	bytes := 0
	for row, err := range rows {
		if err != nil {
			return err
		}
		next.rows = append(next.rows, row)
		if bytes += len(row.Text) + len(row.Pair); len(next.rows) == batchRows || bytes >= batchBytes {
			next.done = make(chan error, 1)
			if err := emit(next); err != nil {
				return err
			}
			next, bytes = &chunk{rows: make([]Row, 0, batchRows)}, 0
		}
	}
	if len(next.rows) == 0 {
		return nil
	}
	next.done = make(chan error, 1)
	return emit(next)
}

// encode fills in the ids of a chunk. A panic of the encoder would end the process here, far from any guard.
func (t *tokenizer) encode(c *chunk) (err error) {
	row := int64(-1)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("tokenize row %d: %v", row, p)
		}
	}()
	encode := func(ids []int32, types []int8, r Row, maxLength int) ([]int32, []int8) {
		if r.Pair == "" {
			return t.enc.AppendIDs(ids, r.Text, maxLength), types
		}
		return t.enc.AppendPair(ids, types, r.Text, r.Pair, maxLength)
	}
	var longer []int32
	var unused []int8
	for _, r := range c.rows {
		row = r.Index
		start := len(c.ids)
		c.ids, c.types = encode(c.ids, c.types, r, t.maxLength)
		truncated := false
		if len(c.ids)-start == t.maxLength { // cut, or just so long: one more id tells
			longer, unused = encode(longer[:0], unused[:0], r, t.maxLength+1)
			truncated = len(longer) > t.maxLength
		}
		c.ends = append(c.ends, len(c.ids))
		c.truncated = append(c.truncated, truncated)
	}
	return nil
}

// write writes the chunks in order.
func (t *tokenizer) write(ctx context.Context, order <-chan *chunk, out *tokenWriter, stats *TokenStats) error {
	for c := range order {
		select {
		case err := <-c.done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := out.write(c); err != nil {
			return err
		}
		start := 0
		for i, end := range c.ends {
			stats.count(end-start, c.truncated[i])
			start = end
		}
		t.progress(stats.Rows)
	}
	return ctx.Err()
}
