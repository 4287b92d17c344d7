package mlflowtest

import (
	"net/http"
	"slices"
	"unicode/utf8"
)

// batchRequest is the body of runs/log-batch.
type batchRequest struct {
	RunID   string   `json:"run_id"`
	Metrics []Metric `json:"metrics"`
	Params  []Tag    `json:"params"`
	Tags    []Tag    `json:"tags"`
}

// check applies the limits and the rules on names.
func (in batchRequest) check() *refusal {
	if len(in.Metrics) > 1000 || len(in.Params) > 100 || len(in.Tags) > 100 || len(in.Metrics)+len(in.Params)+len(in.Tags) > 1000 {
		return bad("A batch logging request can contain at most 1000 metrics, 100 params, 100 tags and 1000 in all")
	}
	seen := map[string]bool{}
	for _, p := range in.Params {
		if seen[p.Key] {
			return bad("Duplicate parameter keys have been submitted: %s", p.Key)
		}
		seen[p.Key] = true
		if refused := checkName(p.Key); refused != nil {
			return refused
		}
	}
	for _, t := range in.Tags {
		if refused := checkName(t.Key); refused != nil {
			return refused
		}
	}
	for _, m := range in.Metrics {
		if refused := m.check(); refused != nil {
			return refused
		}
	}
	return nil
}

func (m Metric) check() *refusal {
	switch m.Value.(type) {
	case float64:
	case string:
		if !slices.Contains([]any{"NaN", "Infinity", "-Infinity"}, m.Value) {
			return bad("Got invalid value %v for metric '%s'", m.Value, m.Key)
		}
	default:
		return bad("Missing value for required parameter 'value' of metric %s", m.Key)
	}
	if m.Timestamp == nil || *m.Timestamp < 0 {
		return bad("Got invalid timestamp for metric '%s'", m.Key)
	}
	return checkName(m.Key)
}

func (s *Server) logBatch(_ *http.Request, in batchRequest) (object, *refusal) {
	r, refused := s.active(in.RunID)
	if refused != nil {
		return nil, refused
	}
	if refused := in.check(); refused != nil {
		return nil, refused
	}
	for _, p := range in.Params { // all or none
		if old, ok := r.Params[p.Key]; ok && old != shorten(p.Value, 6000) {
			return nil, bad("Changing param values is not allowed. Param with key='%s' was already logged with value='%s'", p.Key, old)
		}
	}
	for _, p := range in.Params {
		r.Params[p.Key] = shorten(p.Value, 6000)
	}
	for _, m := range in.Metrics {
		r.add(m)
	}
	// As in MLflow, an unknown model is refused after the run's points are stored.
	for _, m := range in.Metrics {
		if m.ModelID != "" {
			if _, refused := s.model(m.ModelID); refused != nil {
				return nil, refused
			}
		}
	}
	for _, t := range in.Tags {
		r.Tags[t.Key] = shorten(t.Value, 8000)
	}
	return object{}, nil
}

// add stores a point unless (key, value, timestamp, step) is there.
func (r *Run) add(m Metric) {
	for i, old := range r.Metrics {
		if old.Key == m.Key && old.Value == m.Value && *old.Timestamp == *m.Timestamp && old.Step == m.Step {
			if m.ModelID != "" {
				r.Metrics[i].ModelID = m.ModelID
			}
			return
		}
	}
	r.Metrics = append(r.Metrics, m)
}

func (s *Server) logInputs(_ *http.Request, in struct {
	RunID    string  `json:"run_id"`
	Datasets []Input `json:"datasets"`
}) (object, *refusal) {
	r, refused := s.active(in.RunID)
	if refused != nil {
		return nil, refused
	}
	for _, d := range in.Datasets {
		for _, field := range []string{"name", "digest", "source_type", "source"} {
			if d.Dataset[field] == "" {
				return nil, bad("Dataset %s cannot be empty", field)
			}
		}
		if utf8.RuneCountInString(d.Dataset["digest"]) > 36 {
			return nil, bad("'digest' exceeds the maximum length of 36 characters")
		}
		// Identity is name and digest; a second context of the same dataset is dropped silently.
		if !slices.ContainsFunc(r.Inputs, func(old Input) bool {
			return old.Dataset["name"] == d.Dataset["name"] && old.Dataset["digest"] == d.Dataset["digest"]
		}) {
			r.Inputs = append(r.Inputs, d)
		}
	}
	return object{}, nil
}

func (s *Server) logOutputs(_ *http.Request, in struct {
	RunID  string `json:"run_id"`
	Models []struct {
		ID string `json:"model_id"`
	} `json:"models"`
}) (object, *refusal) {
	r, refused := s.active(in.RunID)
	if refused != nil {
		return nil, refused
	}
	for _, m := range in.Models {
		if slices.Contains(r.Outputs, m.ID) {
			return nil, unique("inputs.source_type, inputs.source_id, inputs.destination_type, inputs.destination_id")
		}
		r.Outputs = append(r.Outputs, m.ID)
	}
	return object{}, nil
}

func (s *Server) history(r *http.Request, _ object) (object, *refusal) {
	run, refused := s.run(r.URL.Query().Get("run_id"))
	if refused != nil {
		return nil, refused
	}
	out := []object{}
	for _, m := range run.Metrics {
		if m.Key == r.URL.Query().Get("metric_key") {
			out = append(out, m.reply())
		}
	}
	return object{"metrics": out}, nil
}
