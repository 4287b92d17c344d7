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

	Stratify bool   // the test share has each class in proportion, its size stays exact
	Grouped  bool   // rows with the same Row.Group are on one side; the test share is then at most TestFraction
	Assigned bool   // every Row.Share says its side; TestFraction means nothing
	Dedupe   Dedupe // rows that say the same are one row

	TempDir  string           // where large data spills to; "" is the system's
	Progress func(rows int64) // told the rows taken in; may be nil
}

// Split is a data set cut in two, or three. Close frees what it spilled.
type Split struct {
	Train, Test       *Side
	Validation        *Side // empty where none was asked for
	Duplicates        int   // rows equal to an earlier one: in label and text, and in what the source says of group and share
	Overlap           int   // test rows whose text also stands in train
	ValidationOverlap int   // validation rows whose text also stands in train
	Deduped           int   // rows left out because another says the same
	Conflicts         int   // those of them whose label was another
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
	pairDomain    = "duratune pair content 1\n"
	placedDomain  = "duratune placed content 1\n"
	groupDomain   = "duratune group 1\n"
	splitDomain   = "duratune split 1\n"
	shuffleDomain = "duratune shuffle 1\n"
)

// contentKey identifies what a row says: its class name, its text or texts, and group and share where the source gives them.
func contentKey(label string, row Row) hashKey {
	if row.Pair != "" {
		return keyOf([]byte(pairDomain), u64(len(label)), []byte(label), u64(len(row.Text)), []byte(row.Text), u64(len(row.Pair)), []byte(row.Pair), []byte{byte(row.Share)}, []byte(row.Group))
	}
	if row.Group == "" && row.Share == AnyShare {
		return keyOf([]byte(contentDomain), u64(len(label)), []byte(label), []byte(row.Text))
	}
	return keyOf([]byte(placedDomain), u64(len(label)), []byte(label), u64(len(row.Text)), []byte(row.Text), []byte{byte(row.Share)}, []byte(row.Group))
}

// orderKey places the ordinal-th of all rows with equal content.
func orderKey(domain string, seed int64, content hashKey, ordinal uint64) hashKey {
	return keyOf([]byte(domain), u64(seed), content[:], u64(ordinal))
}

func u64[T int | int64 | uint64](n T) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }

// SplitRows reads all rows and splits them exactly: sorted by SHA-256(split seed, content, ordinal among equals), the
// first ceil(n × TestFraction) are test, and the next ceil(n × Validation) are the validation share. Index of a row becomes
// its rank in that order, so a row below the number of test rows is a test row, with or without a validation share. Each
// side is stored in the order of SHA-256(shuffle seed, content, ordinal among equals).
//
// The spec may choose the test rows in another way: the first of each class ([SplitSpec.Stratify]), whole groups in the
// order of SHA-256(split seed, group) as long as they fit, or as the source says. Test rows then still come first in
// rank, validation rows next, each side by the same order.
//
// Both are functions of the rows' content: the same rows give the same sides in the same order, whatever order, files
// and machine they come from; among equal rows it makes no difference which is which. TestFraction counts as the
// decimal number that it is written as: 0.07 of 100 rows are 7, although 0.07 × 100 > 7 in floating point.
func SplitRows(ctx context.Context, rows iter.Seq2[Row, error], spec SplitSpec) (_ *Split, err error) {
	s := splitter{spec: spec, counts: make([]int64, len(spec.Labels))}
	for _, spool := range []*spool{&s.byContent, &s.byText, &s.byGroup, &s.bySplit, &s.texts} {
		spool.dir = spec.TempDir
	}
	s.out = &Split{Train: s.side(), Test: s.side(), Validation: s.side()}
	defer func() {
		err = errors.Join(err, s.byContent.close(), s.byText.close(), s.byGroup.close(), s.bySplit.close(), s.texts.close())
		if err != nil {
			err = errors.Join(err, s.out.Close())
		}
	}()
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return s.take(ctx, rows) }, s.rank, s.dedupe, s.group, s.deal, s.overlap,
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
// content -> (ordinal) -> [text -> (one of each)] -> [group -> (side)] -> split key -> (rank, side) -> shuffle key of the side.
type splitter struct {
	spec      SplitSpec
	taken     int64
	byContent spool            // content, body
	byText    spool            // dedupe key, share, split key, shuffle key, body
	byGroup   spool            // group key, split key, shuffle key, body
	bySplit   spool            // split key, shuffle key, body
	texts     spool            // text key, side
	n         int64            // rows in bySplit
	given     [numShares]int64 // those of them that are given to a share
	counts    []int64          // rows in bySplit, by class
	out       *Split
}

// body is what a row says, as the spools hold it: class and share, lengths of text and second text, both texts, group.
type body []byte

const bodyHead = 16

func newBody(dst body, row Row) body {
	dst = binary.LittleEndian.AppendUint64(dst[:0], uint64(row.Label)|uint64(row.Share)<<56)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(row.Text)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(row.Pair)))
	dst = append(dst, row.Text...)
	dst = append(dst, row.Pair...)
	return append(dst, row.Group...)
}

func (b body) label() int       { return int(binary.LittleEndian.Uint32(b)) }
func (b body) share() Share     { return Share(b[7]) }
func (b body) give(share Share) { b[7] = byte(share) }
func (b body) text() []byte     { return b[bodyHead:][:binary.LittleEndian.Uint32(b[8:])] }
func (b body) pair() []byte     { return b[bodyHead+len(b.text()):][:binary.LittleEndian.Uint32(b[12:])] }
func (b body) group() []byte    { return b[bodyHead+len(b.text())+len(b.pair()):] }

// textKey identifies the text or texts, each as the function has it, whatever the label.
func (b body) textKey(as func([]byte) []byte) hashKey {
	text := as(b.text())
	if len(b.pair()) == 0 {
		return keyOf(text)
	}
	return keyOf(u64(len(text)), text, as(b.pair()))
}

func verbatim(text []byte) []byte { return text }

func (s *splitter) side() *Side {
	return &Side{LabelCounts: make([]int, len(s.spec.Labels)), spool: spool{dir: s.spec.TempDir}}
}

// take reads the source.
func (s *splitter) take(ctx context.Context, rows iter.Seq2[Row, error]) error {
	var body body
	for row, err := range rows {
		if err != nil {
			return err
		}
		if s.spec.Assigned != (row.Share != AnyShare) || s.spec.Grouped && row.Group == "" {
			return fmt.Errorf("row %d: share %d and group %q do not fit the split", row.Index, row.Share, row.Group)
		}
		if row.Label < 0 || row.Label >= len(s.spec.Labels) {
			return fmt.Errorf("row %d: class %d of %d", row.Index, row.Label, len(s.spec.Labels))
		}
		key := contentKey(s.spec.Labels[row.Label], row)
		body = newBody(body, row)
		if err := s.byContent.add(key[0], key[:], body); err != nil {
			return err
		}
		if s.taken++; s.taken%progressEvery == 0 && s.spec.Progress != nil {
			s.spec.Progress(s.taken)
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
			if err := s.ranked(key, shuffle, rec[len(content):]); err != nil {
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
	choose, given, err := s.choice()
	if err != nil {
		return err
	}
	next := map[*Side]int64{s.out.Test: 0, s.out.Validation: given[TestShare], s.out.Train: given[TestShare] + given[ValidationShare]}
	for p := range numParts {
		recs, err := s.bySplit.sorted(p)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			shuffle, body := rec[16:32], body(rec[32:])
			side, mark := s.out.Train, byte(0)
			if share := choose(body); share == TestShare {
				side, mark = s.out.Test, 1
			} else if share == ValidationShare {
				side, mark = s.out.Validation, 2
			}
			side.NumRows++
			side.LabelCounts[body.label()]++
			textKey := body.textKey(verbatim)
			err = errors.Join(
				side.spool.add(shuffle[0], shuffle, u64(next[side]), body),
				s.texts.add(textKey[0], textKey[:], []byte{mark}))
			if err != nil {
				return err
			}
			next[side]++
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return s.bySplit.close()
}

// overlap counts the test and the validation rows whose text stands in train, whatever the label.
func (s *splitter) overlap(ctx context.Context) error {
	for p := range numParts {
		train := make(map[hashKey]bool)
		test, validation := make(map[hashKey]int), make(map[hashKey]int)
		for rec, err := range s.texts.records(p) {
			if err != nil {
				return err
			}
			switch rec[16] {
			case 1:
				test[hashKey(rec)]++
			case 2:
				validation[hashKey(rec)]++
			case 0:
				train[hashKey(rec)] = true
			}
		}
		for key := range train {
			s.out.Overlap += test[key]
			s.out.ValidationOverlap += validation[key]
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
	f := decimal(fraction)
	f.Mul(f, new(big.Rat).SetInt64(n))
	ceil := new(big.Int).Add(f.Num(), f.Denom())
	return ceil.Sub(ceil, big.NewInt(1)).Quo(ceil, f.Denom()).Int64()
}

// decimal is a finite number as it is written.
func decimal(f float64) *big.Rat {
	r, _ := new(big.Rat).SetString(strconv.FormatFloat(f, 'g', -1, 64)) // what FormatFloat writes of a finite number is one
	return r
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
				body := body(rec[24:])
				row := Row{Index: int64(binary.LittleEndian.Uint64(rec[16:])), Label: body.label(), Text: string(body.text()), Pair: string(body.pair())}
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}
