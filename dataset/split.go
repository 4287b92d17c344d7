package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"slices"
	"strconv"
)

// SplitSpec says how rows are split.
type SplitSpec struct {
	TestFraction float64 // share of the rows held out, (0, 1)
	Validation   float64 // share of the rows kept apart from both, [0, 1)
	SplitSeed    int64   // decides which
	ShuffleSeed  int64   // decides the stored order
	Labels       []string
	TempDir      string           // where large data spills to; "" is the system's
	Progress     func(rows int64) // told the rows taken in; may be nil
}

// Split is a data set cut in two, or three. Close frees what it spilled.
type Split struct {
	Train, Test *Side
	Validation  *Side // empty where none was asked for
	Duplicates  int   // rows equal to an earlier one, label included
	Overlap     int   // test rows whose text also stands in train
}

// Side is one share of a split.
type Side struct {
	NumRows     int
	LabelCounts []int // rows a class
	spool       spool
}

// hashKey is the first 16 bytes of a SHA-256.
type hashKey [16]byte

func keyOf(parts ...[]byte) (k hashKey) {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	copy(k[:], h.Sum(nil))
	return k
}

// Domains keep the hashes apart. They are part of what a split means: a change moves rows between the sides.
const (
	contentDomain = "duratune content 1\n"
	splitDomain   = "duratune split 1\n"
	shuffleDomain = "duratune shuffle 1\n"
)

// contentKey identifies what a row says: its class name and its text.
func contentKey(label, text string) hashKey {
	return keyOf([]byte(contentDomain), u64(len(label)), []byte(label), []byte(text))
}

// orderKey places the ordinal-th of all rows with equal content.
func orderKey(domain string, seed int64, content hashKey, ordinal uint64) hashKey {
	return keyOf([]byte(domain), u64(seed), content[:], u64(ordinal))
}

func u64[T int | int64 | uint64](n T) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }

// SplitRows reads all rows and splits them exactly: sorted by SHA-256(split seed, content, ordinal among equals), the
// first ceil(n × TestFraction) are test, and the next ceil(n × Validation) are the validation share. Index of a row becomes
// its rank in that order, so a row below the number of test rows is a test row, with or without a validation share. Each side is stored in the order of SHA-256(shuffle seed, content, ordinal among equals).
//
// Both are functions of the rows' content: the same rows give the same sides in the same order, whatever order, files
// and machine they come from; among equal rows it makes no difference which is which. TestFraction counts as the
// decimal number that it is written as: 0.07 of 100 rows are 7, although 0.07 × 100 > 7 in floating point.
func SplitRows(ctx context.Context, rows iter.Seq2[Row, error], spec SplitSpec) (_ *Split, err error) {
	s := splitter{spec: spec, byContent: spool{dir: spec.TempDir}, bySplit: spool{dir: spec.TempDir}, texts: spool{dir: spec.TempDir}}
	s.out = &Split{Train: s.side(), Test: s.side(), Validation: s.side()}
	defer func() {
		err = errors.Join(err, s.byContent.close(), s.bySplit.close(), s.texts.close())
		if err != nil {
			err = errors.Join(err, s.out.Close())
		}
	}()
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return s.take(ctx, rows) }, s.rank, s.deal, s.overlap,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s.out, nil
}

// Close frees memory and disk; the rows cannot be read afterwards.
func (s *Split) Close() error {
	return errors.Join(s.Train.spool.close(), s.Test.spool.close(), s.Validation.spool.close())
}

// splitter passes the rows through spools, each keyed by what the next step groups or sorts by:
// content -> (ordinal) -> split key -> (rank, side) -> shuffle key of the side.
type splitter struct {
	spec      SplitSpec
	n         int64
	byContent spool // content, label, text
	bySplit   spool // split key, shuffle key, label, text
	texts     spool // text key, side
	out       *Split
}

func (s *splitter) side() *Side {
	return &Side{LabelCounts: make([]int, len(s.spec.Labels)), spool: spool{dir: s.spec.TempDir}}
}

// take reads the source.
func (s *splitter) take(ctx context.Context, rows iter.Seq2[Row, error]) error {
	for row, err := range rows {
		if err != nil {
			return err
		}
		if row.Label < 0 || row.Label >= len(s.spec.Labels) {
			return fmt.Errorf("row %d: class %d of %d", row.Index, row.Label, len(s.spec.Labels))
		}
		key := contentKey(s.spec.Labels[row.Label], row.Text)
		if err := s.byContent.add(key[0], key[:], u64(row.Label), []byte(row.Text)); err != nil {
			return err
		}
		if s.n++; s.n%progressEvery == 0 && s.spec.Progress != nil {
			s.spec.Progress(s.n)
		}
	}
	return nil
}

// rank numbers equal rows. Only a key and a count a distinct row are held, however often it repeats.
func (s *splitter) rank(ctx context.Context) error {
	for p := range numParts {
		seen := make(map[hashKey]uint64, s.byContent.parts[p].records)
		for rec, err := range s.byContent.records(p) {
			if err != nil {
				return err
			}
			content := hashKey(rec)
			ordinal := seen[content]
			seen[content]++
			if ordinal > 0 {
				s.out.Duplicates++
			}
			key := orderKey(splitDomain, s.spec.SplitSeed, content, ordinal)
			shuffle := orderKey(shuffleDomain, s.spec.ShuffleSeed, content, ordinal)
			if err := s.bySplit.add(key[0], key[:], shuffle[:], rec[len(content):]); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return s.byContent.close()
}

// deal sorts by split key and gives each row its rank and its side.
func (s *splitter) deal(ctx context.Context) error {
	numTest, numValidation, err := heldRows(s.n, s.spec.TestFraction, s.spec.Validation)
	if err != nil {
		return err
	}
	next := int64(0)
	for p := range numParts {
		recs, err := s.bySplit.sorted(p)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			shuffle, label, body := rec[16:32], binary.LittleEndian.Uint64(rec[32:]), rec[40:]
			side, mark := s.out.Train, byte(0)
			switch {
			case next < numTest:
				side, mark = s.out.Test, 1
			case next < numTest+numValidation:
				side, mark = s.out.Validation, 2
			}
			side.NumRows++
			side.LabelCounts[label]++
			textKey := keyOf(body)
			err = errors.Join(
				side.spool.add(shuffle[0], shuffle, u64(next), rec[32:]),
				s.texts.add(textKey[0], textKey[:], []byte{mark}))
			if err != nil {
				return err
			}
			next++
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return s.bySplit.close()
}

// overlap counts the test rows whose text stands in train, whatever the label.
func (s *splitter) overlap(ctx context.Context) error {
	for p := range numParts {
		train := make(map[hashKey]bool)
		test := make(map[hashKey]int)
		for rec, err := range s.texts.records(p) {
			if err != nil {
				return err
			}
			switch rec[16] {
			case 1:
				test[hashKey(rec)]++
			case 0:
				train[hashKey(rec)] = true
			}
		}
		for key, n := range test {
			if train[key] {
				s.out.Overlap += n
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// heldRows is how many of n rows are test and validation rows: ceil(n × fraction) of each, exact in decimal.
func heldRows(n int64, test, validation float64) (numTest, numValidation int64, err error) {
	if test <= 0 || test >= 1 || validation < 0 || test+validation >= 1 {
		return 0, 0, fmt.Errorf("test fraction %g with validation fraction %g: want more than 0 and less than 1 together", test, validation)
	}
	numTest, numValidation = shareOf(n, test), shareOf(n, validation)
	if numTest+numValidation < n {
		return numTest, numValidation, nil
	}
	what := fmt.Sprintf("a test fraction of %g", test)
	if validation > 0 {
		what += fmt.Sprintf(" and a validation fraction of %g", validation)
	}
	return 0, 0, &SourceError{"the source", fmt.Sprintf("%d rows are too few for %s: no row is left to train on", n, what)}
}

// shareOf is ceil(n × fraction) of a fraction from 0 to 1.
func shareOf(n int64, fraction float64) int64 {
	f, _ := new(big.Rat).SetString(strconv.FormatFloat(fraction, 'g', -1, 64)) // what FormatFloat writes of a finite number is one
	f.Mul(f, new(big.Rat).SetInt64(n))
	ceil := new(big.Int).Add(f.Num(), f.Denom())
	return ceil.Sub(ceil, big.NewInt(1)).Quo(ceil, f.Denom()).Int64()
}

// sorted returns the records of a partition in the order of their bytes, which begin with the key.
func (s *spool) sorted(p int) ([][]byte, error) {
	recs := make([][]byte, 0, s.parts[p].records)
	for rec, err := range s.records(p) {
		if err != nil {
			return nil, err
		}
		recs = append(recs, rec)
	}
	slices.SortFunc(recs, bytes.Compare)
	return recs, nil
}

// Rows yields the side's rows in stored order. It may be called again.
func (s *Side) Rows() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		for p := range numParts {
			recs, err := s.spool.sorted(p)
			if err != nil {
				yield(Row{}, err)
				return
			}
			for _, rec := range recs {
				row := Row{
					Index: int64(binary.LittleEndian.Uint64(rec[16:])),
					Label: int(binary.LittleEndian.Uint64(rec[24:])),
					Text:  string(rec[32:]),
				}
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}
