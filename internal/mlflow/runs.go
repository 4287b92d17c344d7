package mlflow

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
)

// Run is a run as the server holds it.
type Run struct {
	ID           string
	ExperimentID string
	Name         string
	Status       Status
	StartTime    int64 // Unix milliseconds
	EndTime      int64 // 0 while it runs
	ArtifactURI  string
	Deleted      bool
	Tags         map[string]string
	Params       map[string]string
	Metrics      map[string]Metric // the newest point of each key
	Models       []string          // ids of the logged models that are its outputs
}

// wireRun is a run in replies.
type wireRun struct {
	Info struct {
		RunID        string `json:"run_id"`
		ExperimentID string `json:"experiment_id"`
		RunName      string `json:"run_name"`
		Status       Status `json:"status"`
		StartTime    int64  `json:"start_time"`
		EndTime      int64  `json:"end_time"`
		ArtifactURI  string `json:"artifact_uri"`
		Stage        string `json:"lifecycle_stage"`
	} `json:"info"`
	Data struct {
		Metrics []Metric `json:"metrics"`
		Params  []pair   `json:"params"`
		Tags    []pair   `json:"tags"`
	} `json:"data"`
	Outputs struct {
		Models []struct {
			ID string `json:"model_id"`
		} `json:"model_outputs"`
	} `json:"outputs"`
}

func (w wireRun) run() Run {
	r := Run{
		ID: w.Info.RunID, ExperimentID: w.Info.ExperimentID, Name: w.Info.RunName, Status: w.Info.Status,
		StartTime: w.Info.StartTime, EndTime: w.Info.EndTime, ArtifactURI: w.Info.ArtifactURI, Deleted: w.Info.Stage == "deleted",
		Tags: unpair(w.Data.Tags), Params: unpair(w.Data.Params), Metrics: make(map[string]Metric, len(w.Data.Metrics)),
	}
	for _, m := range w.Data.Metrics {
		r.Metrics[m.Key] = m
	}
	for _, m := range w.Outputs.Models {
		r.Models = append(r.Models, m.ID)
	}
	return r
}

// RunSpec is what a run is created with.
type RunSpec struct {
	ExperimentID string
	Name         string
	Key          string            // value of KeyTag, without quotes; unique to this run
	StartTime    int64             // Unix milliseconds; equal in every attempt
	User         string            // the run's user_id and mlflow.user (default "duratune")
	Tags         map[string]string // as they are, plus KeyTag
}

// EnsureRun returns the active run that carries spec.Key, created if missing.
func (c *Client) EnsureRun(ctx context.Context, spec RunSpec) (Run, error) {
	const op = "runs/create"
	if err := quotable(op, "key", spec.Key); err != nil {
		return Run{}, err
	}
	user := cmp.Or(spec.User, "duratune")
	tags := map[string]string{TagUser: user}
	for k, v := range spec.Tags {
		tags[k] = v
	}
	body := struct {
		ExperimentID string `json:"experiment_id"`
		UserID       string `json:"user_id"`
		RunName      string `json:"run_name"`
		StartTime    int64  `json:"start_time"`
		Tags         []pair `json:"tags"`
	}{spec.ExperimentID, user, spec.Name, spec.StartTime, tagPairs(tags, spec.Key)}
	return ensure(ctx, c, ensurer[Run]{
		find: func(ctx context.Context) ([]Run, error) {
			return c.searchRuns(ctx, []string{spec.ExperimentID}, TagIs(KeyTag, spec.Key))
		},
		create: func(ctx context.Context) (Run, error) {
			var reply struct {
				Run wireRun `json:"run"`
			}
			err := c.once(ctx, http.MethodPost, op, nil, body, &reply)
			return reply.Run.run(), err
		},
		remove: func(ctx context.Context, r Run) error {
			return c.send(ctx, http.MethodPost, "runs/delete", map[string]string{"run_id": r.ID}, nil)
		},
		id: func(r Run) string { return r.ID },
	})
}

// GetRun reads a run with its tags, params, newest metrics and outputs.
func (c *Client) GetRun(ctx context.Context, id string) (Run, error) {
	var reply struct {
		Run wireRun `json:"run"`
	}
	err := c.get(ctx, "runs/get", url.Values{"run_id": {id}}, &reply)
	return reply.Run.run(), err
}

// FindRuns returns the active runs that match a filter (see [TagIs], [HasTag], [StatusIs], [And]), oldest first, in the
// given experiments or, with none given, in all active ones.
func (c *Client) FindRuns(ctx context.Context, experimentIDs []string, filter string) ([]Run, error) {
	if len(experimentIDs) == 0 {
		all, err := c.Experiments(ctx)
		if err != nil {
			return nil, err
		}
		for _, e := range all {
			experimentIDs = append(experimentIDs, e.ID)
		}
	}
	var out []Run
	err := c.retry(ctx, func(ctx context.Context) error {
		var err error
		out, err = c.searchRuns(ctx, experimentIDs, filter)
		return err
	})
	return out, err
}

// searchRuns reads all pages, oldest first; equal start times are ordered by id.
func (c *Client) searchRuns(ctx context.Context, experimentIDs []string, filter string) ([]Run, error) {
	body := struct {
		ExperimentIDs []string `json:"experiment_ids"`
		Filter        string   `json:"filter"`
		View          string   `json:"run_view_type"`
		Order         []string `json:"order_by"`
		Max           int      `json:"max_results"`
		Page          string   `json:"page_token,omitempty"`
	}{experimentIDs, filter, "ACTIVE_ONLY", []string{"attributes.start_time ASC"}, 1000, ""}
	var out []Run
	for {
		var page struct {
			Runs []wireRun `json:"runs"`
			Next string    `json:"next_page_token"`
		}
		if err := c.once(ctx, http.MethodPost, "runs/search", nil, body, &page); err != nil {
			return nil, err
		}
		for _, w := range page.Runs {
			out = append(out, w.run())
		}
		if body.Page = page.Next; page.Next == "" {
			break
		}
	}
	slices.SortStableFunc(out, func(a, b Run) int { return cmp.Or(cmp.Compare(a.StartTime, b.StartTime), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}

// SetTerminated ends a run (or reopens it with Running and end 0). end is Unix milliseconds.
func (c *Client) SetTerminated(ctx context.Context, runID string, status Status, end int64) error {
	switch status {
	case Running, Finished, Failed, Killed:
	default: // the server answers 200 to unknown states and changes nothing
		return invalid("runs/update", "status: got %q, want RUNNING, FINISHED, FAILED or KILLED", status)
	}
	body := map[string]any{"run_id": runID, "status": status}
	if end != 0 {
		body["end_time"] = end
	}
	return c.send(ctx, http.MethodPost, "runs/update", body, nil)
}

// SetTags sets or replaces tags of a run.
func (c *Client) SetTags(ctx context.Context, runID string, tags map[string]string) error {
	return c.LogBatch(ctx, runID, Batch{Tags: tags})
}

// MetricHistory reads every point of a key, in the server's order.
func (c *Client) MetricHistory(ctx context.Context, runID, key string) ([]Metric, error) {
	var all []Metric
	q := url.Values{"run_id": {runID}, "metric_key": {key}, "max_results": {"25000"}}
	for {
		var page struct {
			Metrics []Metric `json:"metrics"`
			Next    string   `json:"next_page_token"`
		}
		if err := c.get(ctx, "metrics/get-history", q, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Metrics...)
		if page.Next == "" {
			return all, nil
		}
		q.Set("page_token", page.Next)
	}
}

// ensurer is how one kind of thing is found by key, created and removed.
type ensurer[T any] struct {
	find   func(context.Context) ([]T, error) // oldest first
	create func(context.Context) (T, error)
	remove func(context.Context, T) error
	id     func(T) string
}

// ensure finds or creates. Two callers may both find nothing and create; each then looks again, and the one that is
// not first removes what it made itself, never what another made and may be using.
func ensure[T any](ctx context.Context, c *Client, e ensurer[T]) (T, error) {
	var out T
	err := c.retry(ctx, func(ctx context.Context) error {
		found, err := e.find(ctx)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			out = found[0]
			return nil
		}
		made, err := e.create(ctx)
		if err != nil {
			return err
		}
		found, err = e.find(ctx)
		if err != nil {
			return err
		}
		out = made
		if len(found) > 0 && e.id(found[0]) != e.id(made) {
			out = found[0]
			return e.remove(ctx, made)
		}
		return nil
	})
	return out, err
}
