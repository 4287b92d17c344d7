package mlflow

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"path"
	"slices"
	"strings"
	"unicode"
)

// tagLoggedArtifacts lists a run's tables; MLflow's pages and load_table find them by it.
const tagLoggedArtifacts = "mlflow.loggedArtifacts"

// maxCell is how many characters of a text a table keeps.
const maxCell = 2000

// Table is a table artifact in MLflow's JSON form (pandas' orient="split" without index). Cells are strings, booleans,
// whole numbers or floats.
type Table struct {
	Columns []string `json:"columns"`
	Data    [][]any  `json:"data"`
}

// LogTable writes the table to the run as the JSON artifact name, replacing what was there, and lists it in the tag by
// which MLflow shows it. Texts are cleaned ([CleanText]), floats that are not finite become null.
func (c *Client) LogTable(ctx context.Context, runID, name string, table Table) error {
	op := "table " + name
	if path.Ext(name) != ".json" {
		return invalid(op, "name: want one that ends in .json")
	}
	clean := Table{Columns: table.Columns, Data: make([][]any, len(table.Data))}
	for i, row := range table.Data {
		if len(row) != len(table.Columns) {
			return invalid(op, "row %d has %d cells, want %d", i, len(row), len(table.Columns))
		}
		for _, v := range row {
			clean.Data[i] = append(clean.Data[i], cell(v))
		}
	}
	body, err := json.Marshal(clean)
	if err != nil {
		return invalid(op, "cannot encode: %v", err)
	}
	run, err := c.GetRun(ctx, runID)
	if err != nil {
		return err
	}
	if err := c.UploadArtifact(ctx, run.ArtifactURI, name, bytes.NewReader(body), int64(len(body)), nil); err != nil {
		return err
	}
	return c.listTable(ctx, run, name)
}

// listTable adds the table to the tag unless it is there.
func (c *Client) listTable(ctx context.Context, run Run, name string) error {
	type entry struct {
		Path string `json:"path"`
		Type string `json:"type"`
	}
	var list []entry
	// A tag that is no list is another tool's doing; it is replaced.
	_ = json.Unmarshal([]byte(run.Tags[tagLoggedArtifacts]), &list)
	if e := (entry{name, "table"}); !slices.Contains(list, e) {
		list = append(list, e)
	}
	text, err := pythonJSON(list)
	if err != nil {
		return invalid("table "+name, "cannot encode: %v", err)
	}
	return c.SetTags(ctx, run.ID, map[string]string{tagLoggedArtifacts: string(text)})
}

func cell(v any) any {
	switch v := v.(type) {
	case string:
		return CleanText(v, maxCell)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
	case float32:
		return cell(float64(v))
	}
	return v
}

// CleanText makes any bytes fit to be shown: invalid UTF-8 becomes U+FFFD, control characters but tab and newline their
// pictures (U+2400 and on, or U+FFFD), and what is longer than limit characters is cut and ends in "…".
func CleanText(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n' || !unicode.IsControl(r):
			return r
		case r < ' ':
			return '␀' + r
		}
		return unicode.ReplacementChar
	}, strings.ToValidUTF8(s, string(unicode.ReplacementChar)))
	return cut(s, limit)
}
