package mlflow

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
)

// Batch is what LogBatch writes to a run.
type Batch struct {
	Metrics []Metric
	Params  map[string]string // written once: another value later is refused
	Tags    map[string]string // upserted
}

// LogBatch writes params, tags and metrics, in as many requests as the server's limits need. Names are cleaned
// ([CleanName]) and long values cut. Repeating it, also after a part of it arrived, adds nothing.
func (c *Client) LogBatch(ctx context.Context, runID string, b Batch) error {
	items, err := b.items()
	if err != nil {
		return err
	}
	for len(items) > 0 {
		n, body := pack(runID, items)
		if err := c.send(ctx, http.MethodPost, "runs/log-batch", body, nil); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// The lists of a log-batch body.
const (
	kindParam = iota
	kindTag
	kindMetric
	kinds
)

// item is one encoded entry of a batch.
type item struct {
	kind int
	json json.RawMessage
}

// items encodes the batch, params first: a refused param then stops it before metrics are written.
func (b Batch) items() ([]item, error) {
	const op = "runs/log-batch"
	var out []item
	add := func(kind int, v any) error {
		j, err := json.Marshal(v)
		if err != nil {
			return invalid(op, "cannot encode: %v", err)
		}
		out = append(out, item{kind, j})
		return nil
	}
	for _, list := range []struct {
		kind   int
		values map[string]string
		limit  int
	}{{kindParam, b.Params, maxParamValue}, {kindTag, b.Tags, maxTagValue}} {
		seen := make(map[string]string, len(list.values))
		for _, name := range slices.Sorted(maps.Keys(list.values)) {
			key := CleanName(name)
			if first, ok := seen[key]; ok {
				return nil, invalid(op, "%q and %q are both %q once cleaned", first, name, key)
			}
			seen[key] = name
			if err := add(list.kind, pair{key, cut(list.values[name], list.limit)}); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range b.Metrics {
		if m.Timestamp < 0 {
			return nil, invalid(op, "metric %s at step %d: timestamp %d is negative", m.Key, m.Step, m.Timestamp)
		}
		m.Key = CleanName(m.Key)
		if err := add(kindMetric, m); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// logBatch is the body of runs/log-batch.
type logBatch struct {
	RunID   string            `json:"run_id"`
	Params  []json.RawMessage `json:"params,omitempty"`
	Tags    []json.RawMessage `json:"tags,omitempty"`
	Metrics []json.RawMessage `json:"metrics,omitempty"`
}

// pack takes as many of items as one request may carry, and at least one.
func pack(runID string, items []item) (int, logBatch) {
	limits := [kinds]int{kindParam: maxBatchParams, kindTag: maxBatchTags, kindMetric: maxBatchMetrics}
	var lists [kinds][]json.RawMessage
	n, size := 0, 0
	for ; n < len(items) && n < maxBatchTotal; n++ {
		it := items[n]
		if len(lists[it.kind]) == limits[it.kind] || (n > 0 && size+len(it.json) > maxBatchBytes) {
			break
		}
		lists[it.kind] = append(lists[it.kind], it.json)
		size += len(it.json) + 1
	}
	return n, logBatch{runID, lists[kindParam], lists[kindTag], lists[kindMetric]}
}

// Dataset is data that a run used. The server knows it by (experiment, name, digest) and keeps the first source,
// schema and profile it was given; one run holds it in one context only, so give training and evaluation data
// different digests.
type Dataset struct {
	Name       string
	Digest     string            // at most 36 characters
	SourceType string            // e.g. "s3", "hugging_face", "local"
	Source     string            // JSON, e.g. {"uri": "s3://…"}
	Schema     string            // JSON, e.g. {"mlflow_colspec": […]}; may be empty
	Profile    string            // JSON, e.g. {"num_rows": 10}; may be empty
	Context    string            // "training", "evaluation", …
	Tags       map[string]string // more tags of this use of it
}

// LogInputs records datasets as the run's inputs, before metrics name them. Repeating it adds nothing.
func (c *Client) LogInputs(ctx context.Context, runID string, datasets []Dataset) error {
	type dataset struct {
		Name       string `json:"name"`
		Digest     string `json:"digest"`
		SourceType string `json:"source_type"`
		Source     string `json:"source"`
		Schema     string `json:"schema,omitempty"`
		Profile    string `json:"profile,omitempty"`
	}
	type input struct {
		Tags    []pair  `json:"tags"`
		Dataset dataset `json:"dataset"`
	}
	var inputs []input
	for _, d := range datasets {
		if len(d.Digest) > 36 || d.Digest == "" {
			return invalid("runs/log-inputs", "dataset %s: digest %q, want 1 to 36 characters", d.Name, d.Digest)
		}
		tags := append([]pair{{"mlflow.data.context", d.Context}}, pairs(d.Tags)...)
		inputs = append(inputs, input{tags, dataset{d.Name, d.Digest, d.SourceType, d.Source, d.Schema, d.Profile}})
	}
	return c.send(ctx, http.MethodPost, "runs/log-inputs", map[string]any{"run_id": runID, "datasets": inputs}, nil)
}
