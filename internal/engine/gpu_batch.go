//go:build torch

package engine

import (
	"math"
	"slices"

	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/torch"
	"github.com/duratune/duratune/internal/train"
)

// shape is what a graph is captured for: so many rows in so many tokens.
type shape struct {
	rows, tokens int
	width        int // tokens a row takes, padding included; 0: rows lie one behind the other
	maxKey       int // bounds a row, and what counts of the padding behind it
	labels, ints int
	typed        bool // with token types
}

func newShape(rows, tokens, width, maxKey, labels int) shape {
	ints := torch.HeaderInts + rows*labels + rows + 2*(2*rows+1) + 2*tokens
	return shape{rows: rows, tokens: tokens, width: width, maxKey: maxKey, labels: labels, ints: ints}
}

// typedIf is the shape with token types, if the batch has some.
func (s shape) typedIf(typed bool) shape {
	if typed {
		s.typed, s.ints = true, s.ints+s.tokens
	}
	return s
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }

// trainUnit is the step in which the tokens of packed training batches grow: fine enough to waste little, coarse enough for
// some twenty graphs to serve all batches.
func trainUnit(tokens int) int {
	switch {
	case tokens <= 512:
		return 32
	case tokens <= 1024:
		return 64
	default:
		return 128
	}
}

// longest is the largest number of tokens, at least 1.
func longest(seqs []train.Sequence) int {
	n := 1
	for _, seq := range seqs {
		n = max(n, len(seq.IDs))
	}
	return n
}

// trainShape is the shape of a micro-batch. nil stands for the largest.
func trainShape(s train.Spec, seqs []train.Sequence) shape {
	if s.Padding == "max_length" {
		return newShape(s.MicroStep, s.MicroStep*s.MaxLength, s.MaxLength, s.MaxLength, len(s.Labels))
	}
	tokens := s.MicroStep * s.MaxLength
	if seqs != nil {
		tokens = s.MicroStep - len(seqs) // rows that fill up have one token
		for _, seq := range seqs {
			tokens += len(seq.IDs)
		}
	}
	unit := trainUnit(tokens)
	return newShape(s.MicroStep, roundUp(tokens, unit), 0, max(s.MaxLength, unit), len(s.Labels))
}

// evalRows are the numbers of rows that evaluation graphs are captured for.
var evalRows = []int{8, 64, 512, 2048}

// gpuEvalTokens bounds the tokens of a GPU's evaluation batch.
const gpuEvalTokens = 32768

func evalShape(s train.Spec, rows, tokens int) shape {
	r := evalRows[slices.IndexFunc(evalRows, func(n int) bool { return n >= rows })]
	tokens += r - rows
	unit := 64
	if tokens > 512 {
		unit = 256
	}
	if tokens > 4096 {
		unit = 1024
	}
	return newShape(r, roundUp(tokens, unit), 0, s.MaxLength, len(s.Labels))
}

func largestEval(s train.Spec) shape {
	rows := evalRows[len(evalRows)-1]
	return evalShape(s, rows, max(gpuEvalTokens, s.MaxLength)+rows)
}

// fill lays a batch out as cuda.h says. Rows beyond seqs get one token and no share of the loss. Padding has positions that
// differ, as far as the model counts it, since the gradients of one position are added up one after the other.
func (s shape) fill(dst []int32, c model.Config, seqs []train.Sequence) {
	clear(dst)
	at := torch.HeaderInts + s.rows*s.labels
	take := func(n int) []int32 {
		part := dst[at : at+n]
		at += n
		return part
	}
	first, queries, keys, ids, positions := take(s.rows), take(2*s.rows+1), take(2*s.rows+1), take(s.tokens), take(s.tokens)
	var types []int32
	if s.typed {
		types = take(s.tokens)
	}
	for k := range ids {
		ids[k], positions[k] = int32(max(0, c.PadID)), int32(c.PadID)
		if c.Type != model.RoBERTa {
			positions[k] = int32(k % c.Positions)
		}
	}
	n, scratch := 0, make([]int64, 0, s.maxKey)
	for i := range s.rows {
		start, length := n, 1
		if i < len(seqs) {
			length = copy(ids[n:], seqs[i].IDs)
			scratch = c.AppendPositions(scratch[:0], seqs[i].IDs)
			for k, p := range scratch {
				positions[n+k] = int32(p)
			}
			if s.typed {
				for k, typ := range seqs[i].Types {
					types[n+k] = int32(typ)
				}
			}
		}
		n += length
		first[i], queries[2*i], queries[2*i+1] = int32(start), int32(i), int32(i+1)
		keys[2*i], keys[2*i+1] = int32(start), int32(n)
		if s.width > 0 {
			n = (i + 1) * s.width
		}
	}
	// What pads the batch is in the last segment, as far as one may reach. In an evaluation more may be left, which nobody reads.
	queries[2*s.rows], keys[2*s.rows] = int32(s.rows), int32(min(s.tokens, n+s.maxKey))
}

// target writes each row's share of the loss times its label distribution: of a batch of so many rows, the mean.
func (s shape) target(dst []int32, labels []int64, batch int, smoothing float64) {
	share, c := 1/float64(batch), float64(s.labels)
	for i, label := range labels {
		for k := range s.labels {
			p := smoothing / c
			if int64(k) == label {
				p += 1 - smoothing
			}
			dst[torch.HeaderInts+i*s.labels+k] = bits(p * share)
		}
	}
}

// header writes what the update needs; see cuda.h.
func header(dst []int32, spec train.Spec, step int64, lr float64, row int) {
	t := float64(step + 1)
	dst[0], dst[1] = bits(lr), bits(t)
	dst[2], dst[3] = bits(1-math.Pow(spec.AdamBeta1, t)), bits(math.Sqrt(1-math.Pow(spec.AdamBeta2, t)))
	dst[4] = int32(row)
}

func bits(x float64) int32 { return int32(math.Float32bits(float32(x))) }
