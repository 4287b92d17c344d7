package recipe

import (
	"fmt"
	"reflect"
	"strings"
)

// suggest names the key of t that an unknown one may have meant, or says where in the recipe it belongs, or lists t's.
func suggest(name string, t reflect.Type) string {
	var keys []string
	best, bestDistance := "", 3 // edits that a slip makes at most
	for field := range t.Fields() {
		k := key(field)
		keys = append(keys, k)
		if d := distance(strings.ToLower(name), k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf(", did you mean %s?", best)
	}
	if path := find(name, "", reflect.TypeFor[Recipe]()); path != "" {
		return fmt.Sprintf(", did you mean %s?", path)
	}
	return ", known are " + strings.Join(keys, ", ")
}

// find returns the path of the first key called name in t.
func find(name, path string, t reflect.Type) string {
	for field := range t.Fields() {
		at := join(path, key(field))
		if key(field) == name {
			return at
		}
		if field.Type.Kind() == reflect.Struct {
			if found := find(name, at, field.Type); found != "" {
				return found
			}
		}
	}
	return ""
}

// distance is Levenshtein's: the insertions, deletions and replacements that turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
