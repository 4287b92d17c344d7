package mlflow

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
)

// KeyTag is the tag that carries the caller's key on runs, logged models and model versions.
const KeyTag = "duratune.key"

// Tags that MLflow's pages read.
const (
	TagUser        = "mlflow.user"
	TagSourceName  = "mlflow.source.name"
	TagSourceType  = "mlflow.source.type"  // LOCAL, JOB, NOTEBOOK or PROJECT
	TagNote        = "mlflow.note.content" // description, Markdown
	TagParentRunID = "mlflow.parentRunId"  // nests a run
)

// Status is the state of a run.
type Status string

// The states of a run.
const (
	Running  Status = "RUNNING"
	Finished Status = "FINISHED"
	Failed   Status = "FAILED"
	Killed   Status = "KILLED"
)

// ModelStatus is the state of a logged model.
type ModelStatus string

// The states of a logged model. Loaders do not look at it.
const (
	ModelPending ModelStatus = "LOGGED_MODEL_PENDING"
	ModelReady   ModelStatus = "LOGGED_MODEL_READY"
	ModelFailed  ModelStatus = "LOGGED_MODEL_UPLOAD_FAILED"
)

// Metric is one point of a series. The server knows a point by (key, value, timestamp, step); sending it again is
// harmless, sending it with another time stamp makes a second point.
type Metric struct {
	Key       string
	Value     float64 // NaN is kept; infinities come back as ±1.797e308
	Timestamp int64   // Unix milliseconds, not negative
	Step      int64

	ModelID       string // copies the point to that logged model; it must exist
	DatasetName   string // names a dataset logged to the run before
	DatasetDigest string
}

// wireMetric is Metric in JSON. Value has no omitempty: MLflow refuses a metric without it.
type wireMetric struct {
	Key           string `json:"key"`
	Value         number `json:"value"`
	Timestamp     int64  `json:"timestamp"`
	Step          int64  `json:"step"`
	ModelID       string `json:"model_id,omitempty"`
	DatasetName   string `json:"dataset_name,omitempty"`
	DatasetDigest string `json:"dataset_digest,omitempty"`
}

// MarshalJSON writes the server's form.
func (m Metric) MarshalJSON() ([]byte, error) {
	return json.Marshal(wireMetric{m.Key, number(m.Value), m.Timestamp, m.Step, m.ModelID, m.DatasetName, m.DatasetDigest})
}

// UnmarshalJSON reads the server's form.
func (m *Metric) UnmarshalJSON(b []byte) error {
	var w wireMetric
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*m = Metric{w.Key, float64(w.Value), w.Timestamp, w.Step, w.ModelID, w.DatasetName, w.DatasetDigest}
	return nil
}

// number is a float64 whose non-finite values are the JSON strings NaN, Infinity and -Infinity, as protobuf has it.
type number float64

// MarshalJSON writes a number or one of the three strings.
func (n number) MarshalJSON() ([]byte, error) {
	switch f := float64(n); {
	case math.IsNaN(f):
		return []byte(`"NaN"`), nil
	case math.IsInf(f, 1):
		return []byte(`"Infinity"`), nil
	case math.IsInf(f, -1):
		return []byte(`"-Infinity"`), nil
	default:
		return json.Marshal(f)
	}
}

// UnmarshalJSON reads a number or one of the three strings.
func (n *number) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case `"NaN"`:
		*n = number(math.NaN())
	case `"Infinity"`:
		*n = number(math.Inf(1))
	case `"-Infinity"`:
		*n = number(math.Inf(-1))
	default:
		var f float64
		if err := json.Unmarshal(b, &f); err != nil {
			return fmt.Errorf("metric value: %w", err)
		}
		*n = number(f)
	}
	return nil
}

// pair is a tag or a param on the wire.
type pair struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// pairs turns a map into the wire's list, sorted by key.
func pairs(m map[string]string) []pair {
	var out []pair
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, pair{k, m[k]})
	}
	return out
}

// unpair is the inverse of pairs.
func unpair(list []pair) map[string]string {
	out := make(map[string]string, len(list))
	for _, p := range list {
		out[p.Key] = p.Value
	}
	return out
}

// tagPairs cleans the tags and adds the key.
func tagPairs(tags map[string]string, key string) []pair {
	all := make(map[string]string, len(tags)+1)
	for k, v := range tags {
		all[CleanName(k)] = cut(v, maxTagValue)
	}
	if key != "" {
		all[KeyTag] = key
	}
	return pairs(all)
}
