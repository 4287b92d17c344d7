package dataset

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/big"
	"slices"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Dedupe says which rows say the same, whatever their label. One of each is kept: of those that the source gives to test
// if there are any, the first in the order of the split.
type Dedupe string

// What is deduplicated.
const (
	DedupeNone       Dedupe = "none"       // or ""
	DedupeExact      Dedupe = "exact"      // texts with the same bytes
	DedupeNormalised Dedupe = "normalised" // texts equal after NFKC, case folding, and taking runs of white space as one blank
)

// normalise is what DedupeNormalised compares.
func normalise(text []byte) []byte {
	folded := cases.Fold().Bytes(norm.NFKC.Bytes(text))
	return bytes.Join(bytes.Fields(norm.NFKC.Bytes(folded)), []byte(" "))
}

// ranked takes a row whose split key is known to the step that comes next.
func (s *splitter) ranked(key, shuffle hashKey, b body) error {
	if s.spec.Dedupe == DedupeNone || s.spec.Dedupe == "" {
		return s.single(key[:], shuffle[:], b)
	}
	as := verbatim
	if s.spec.Dedupe == DedupeNormalised {
		as = normalise
	}
	same := b.textKey(as)
	order := [numShares]byte{TestShare: 0, ValidationShare: 1, TrainShare: 2, AnyShare: 2}[b.share()]
	return s.byText.add(same[0], same[:], []byte{order}, key[:], shuffle[:], b)
}

// dedupe keeps the first of the rows that say the same.
func (s *splitter) dedupe(ctx context.Context) error {
	for p := range numParts {
		recs, err := s.byText.sorted(p)
		if err != nil {
			return err
		}
		var kept []byte
		for _, rec := range recs {
			key, shuffle, b := rec[17:33], rec[33:49], body(rec[49:])
			if kept != nil && bytes.Equal(rec[:16], kept[:16]) {
				s.out.Deduped++
				if b.label() != body(kept[49:]).label() {
					s.out.Conflicts++
				}
				continue
			}
			kept = rec
			if err := s.single(key, shuffle, b); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return s.byText.close()
}

// single takes a row that stays.
func (s *splitter) single(key, shuffle []byte, b body) error {
	s.n++
	s.counts[b.label()]++
	if s.spec.Grouped && !s.spec.Assigned {
		group := keyOf([]byte(groupDomain), u64(s.spec.SplitSeed), b.group())
		return s.byGroup.add(group[0], group[:], key, shuffle, b)
	}
	return s.placed(key, shuffle, b)
}

// placed takes a row whose share is known, if it depends on anything but its rank.
func (s *splitter) placed(key, shuffle []byte, b body) error {
	s.given[b.share()]++
	return s.bySplit.add(key[0], key, shuffle, b)
}

// group gives whole groups to test and to validation, in the order of their keys, as long as they fit.
func (s *splitter) group(ctx context.Context) error {
	if !s.spec.Grouped || s.spec.Assigned {
		return nil
	}
	test, validation, err := heldRows(s.n, s.spec.TestFraction, s.spec.Validation)
	if err != nil {
		return err
	}
	for p := range numParts {
		recs, err := s.byGroup.sorted(p)
		if err != nil {
			return err
		}
		for len(recs) > 0 {
			size := slices.IndexFunc(recs, func(rec []byte) bool { return !bytes.Equal(rec[:16], recs[0][:16]) })
			if size < 0 {
				size = len(recs)
			}
			share := TrainShare
			switch {
			case s.given[TestShare]+int64(size) <= test:
				share = TestShare
			case s.given[ValidationShare]+int64(size) <= validation:
				share = ValidationShare
			}
			for _, rec := range recs[:size] {
				b := body(rec[48:])
				b.give(share)
				if err := s.placed(rec[16:32], rec[32:48], b); err != nil {
					return err
				}
			}
			recs = recs[size:]
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return s.byGroup.close()
}

// choice returns what gives the next row in split order its share, and how many rows each share will have.
func (s *splitter) choice() (func(body) Share, [numShares]int64, error) {
	if s.spec.Assigned || s.spec.Grouped {
		return s.asGiven()
	}
	test, validation, err := heldRows(s.n, s.spec.TestFraction, s.spec.Validation)
	counts := [numShares]int64{TestShare: test, ValidationShare: validation, TrainShare: s.n - test - validation}
	if err != nil {
		return nil, counts, err
	}
	if s.spec.Stratify {
		held := quotas(s.counts, test, decimal(s.spec.TestFraction))
		left := make([]int64, len(held))
		for class, n := range s.counts {
			left[class] = n - held[class]
		}
		kept := quotas(left, validation, big.NewRat(validation, s.n-test))
		return func(b body) Share { return take(&held[b.label()], &kept[b.label()]) }, counts, nil
	}
	return func(body) Share { return take(&test, &validation) }, counts, nil
}

// take counts a row down: the first are test rows, the next are for validation.
func take(test, validation *int64) Share {
	switch {
	case *test > 0:
		*test--
		return TestShare
	case *validation > 0:
		*validation--
		return ValidationShare
	}
	return TrainShare
}

// asGiven leaves each row the share that its group or the source gives it. Where the source gives none to validation, the
// first of the rows for training are, as many as the fraction says.
func (s *splitter) asGiven() (func(body) Share, [numShares]int64, error) {
	carve, given := int64(0), &s.given
	if s.spec.Assigned && given[ValidationShare] == 0 {
		carve = min(shareOf(s.n, s.spec.Validation), given[TrainShare])
		given[ValidationShare] += carve
		given[TrainShare] -= carve
	}
	if given[TestShare] == 0 || given[TrainShare] == 0 {
		what := "the source leaves one side without rows"
		if s.spec.Grouped {
			what = "no group is small enough for the test fraction, or all of them are"
		}
		return nil, *given, &SourceError{"the source", fmt.Sprintf("%d of %d rows are test rows and %d are to train on: %s", given[TestShare], s.n, given[TrainShare], what)}
	}
	return func(b body) Share {
		if b.share() == TrainShare && carve > 0 {
			carve--
			return ValidationShare
		}
		return b.share()
	}, *given, nil
}

// quotas shares held rows out over classes: floor(count × fraction) each, and one more to the classes with the largest
// remainders, the earlier class first among equals.
func quotas(counts []int64, held int64, fraction *big.Rat) []int64 {
	type remainder struct {
		class int
		rest  *big.Rat
	}
	out := make([]int64, len(counts))
	var rests []remainder
	for class, n := range counts {
		exact := new(big.Rat).Mul(fraction, new(big.Rat).SetInt64(n))
		floor := new(big.Int).Quo(exact.Num(), exact.Denom())
		out[class] = floor.Int64()
		held -= out[class]
		if out[class] < n {
			rests = append(rests, remainder{class, exact.Sub(exact, new(big.Rat).SetInt(floor))})
		}
	}
	slices.SortFunc(rests, func(a, b remainder) int { return cmp.Or(b.rest.Cmp(a.rest), cmp.Compare(a.class, b.class)) })
	for _, r := range rests[:min(int(held), len(rests))] {
		out[r.class]++
	}
	return out
}
