package dataset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Bounds of inferred class names.
const (
	maxClasses   = 1000
	maxClassName = 250 // bytes
)

// InferLabels reads all files and returns the class names that their labels are: integers in the order of their values, all
// others in the order of their bytes. It is a function of the set of labels alone, whatever the order of rows and files.
// Rows that cannot be read are left for [Read] to complain about.
func InferLabels(ctx context.Context, files []File, opt Options) ([]string, error) {
	opt.Labels, opt.Pair, opt.Group, opt.Split = nil, "", "", ""
	opt = opt.withDefaults()
	seen := map[string]bool{}
	rows := int64(0)
	for _, f := range files {
		if err := labelsOf(ctx, f, opt, seen, &rows); err != nil {
			return nil, err
		}
	}
	names := slices.Collect(maps.Keys(seen))
	if len(names) < 2 {
		return nil, &SourceError{sourceName(files), fmt.Sprintf("%d different labels in column %s; training needs at least two classes", len(names), quote(opt.Label))}
	}
	slices.SortFunc(names, byLabel(names))
	return names, nil
}

// labelsOf adds the labels of a file.
func labelsOf(ctx context.Context, f File, opt Options, seen map[string]bool, rows *int64) error {
	in, err := openInput(f, opt)
	if err != nil {
		return err
	}
	defer in.close()
	var rec record
	for {
		if *rows++; *rows%progressEvery == 0 {
			opt.Progress(*rows)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		err := in.next(&rec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if _, bad := errors.AsType[*RowError](err); bad || err == nil && (rec.label.empty() || rec.label.kind == other) {
			continue
		}
		if err != nil {
			return err
		}
		name := strings.TrimSpace(rec.label.String())
		if seen[name] {
			continue
		}
		if len(name) > maxClassName || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return &SourceError{f.Name, fmt.Sprintf("label %s in column %s is no name of a class; is it the column of the label?", quote(name), quote(opt.Label))}
		}
		if len(seen) == maxClasses {
			return &SourceError{f.Name, fmt.Sprintf("more than %d different labels in column %s; is it the column of the label?", maxClasses, quote(opt.Label))}
		}
		seen[name] = true
	}
}

// byLabel orders by value if all names are integers, else by bytes.
func byLabel(names []string) func(a, b string) int {
	values := map[string]int64{}
	for _, name := range names {
		n, err := strconv.ParseInt(name, 10, 64)
		if err != nil || strconv.FormatInt(n, 10) != name {
			return cmp.Compare[string]
		}
		values[name] = n
	}
	return func(a, b string) int { return cmp.Compare(values[a], values[b]) }
}
