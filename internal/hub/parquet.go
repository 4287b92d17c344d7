package hub

import (
	"encoding/json"
	"fmt"

	"github.com/apache/arrow/go/v17/parquet/file"
)

// parquetClassNames reads the class names of a Parquet file's label columns from the metadata that Hugging Face's
// writers put there; nil if there is none.
func parquetClassNames(path string) (names map[string][]string, err error) {
	defer func() { // the reader panics on some malformed footers
		if r := recover(); r != nil {
			err = fmt.Errorf("malformed Parquet file: %v", r)
		}
	}()
	r, err := file.OpenParquetFile(path, false)
	if err != nil {
		return nil, fmt.Errorf("open Parquet file: %w", err)
	}
	defer r.Close()
	value := r.MetaData().KeyValueMetadata().FindValue("huggingface")
	if value == nil {
		return nil, nil
	}
	var meta struct {
		Info struct {
			Features map[string]json.RawMessage `json:"features"`
		} `json:"info"`
	}
	if err := json.Unmarshal([]byte(*value), &meta); err != nil {
		return nil, fmt.Errorf("metadata key huggingface: %w", err)
	}
	names = map[string][]string{}
	for column, raw := range meta.Info.Features {
		var feature struct {
			Type  string   `json:"_type"`
			Names []string `json:"names"`
		}
		if json.Unmarshal(raw, &feature) == nil && feature.Type == "ClassLabel" && len(feature.Names) > 0 {
			names[column] = feature.Names
		}
	}
	return names, nil
}
