package mlflowtest

import (
	"fmt"
	"net/http"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"
)

// routes lists what is served.
func (s *Server) routes() http.Handler {
	const v2 = "/api/2.0/mlflow/"
	mux := http.NewServeMux()
	text := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
	}
	mux.HandleFunc("GET /health", text("OK"))
	mux.HandleFunc("GET /version", text(s.opts.Version))
	mux.HandleFunc("GET /api/3.0/mlflow/server-info", handle(s, s.info))
	mux.HandleFunc("GET "+v2+"experiments/get-by-name", handle(s, s.experimentByName))
	mux.HandleFunc("GET "+v2+"experiments/search", handle(s, s.searchExperiments))
	mux.HandleFunc("POST "+v2+"experiments/create", handle(s, s.createExperiment))
	mux.HandleFunc("POST "+v2+"runs/create", handle(s, s.createRun))
	mux.HandleFunc("POST "+v2+"runs/search", handle(s, s.searchRuns))
	mux.HandleFunc("GET "+v2+"runs/get", handle(s, s.getRun))
	mux.HandleFunc("POST "+v2+"runs/update", handle(s, s.updateRun))
	mux.HandleFunc("POST "+v2+"runs/delete", handle(s, s.deleteRun))
	mux.HandleFunc("POST "+v2+"runs/log-batch", handle(s, s.logBatch))
	mux.HandleFunc("POST "+v2+"runs/log-inputs", handle(s, s.logInputs))
	mux.HandleFunc("POST "+v2+"runs/outputs", handle(s, s.logOutputs))
	mux.HandleFunc("GET "+v2+"metrics/get-history", handle(s, s.history))
	s.modelRoutes(mux, v2)
	s.artifactRoutes(mux, v2)
	return mux
}

func (s *Server) info(_ *http.Request, _ object) (object, *refusal) {
	return object{
		"store_type": "SqlStore", "multipart_uploads_enabled": s.opts.Multipart || s.opts.PresignedOnly,
		"artifacts_presigned_only": s.opts.PresignedOnly, "presigned_upload_model_id_supported": true,
	}, nil
}

func (e *experiment) reply() object {
	stage := "active"
	if e.Deleted {
		stage = "deleted"
	}
	return object{"experiment_id": e.ID, "name": e.Name, "artifact_location": e.Location, "lifecycle_stage": stage}
}

func (s *Server) experimentByName(r *http.Request, _ object) (object, *refusal) {
	name := r.URL.Query().Get("experiment_name")
	for _, e := range s.experiments {
		if e.Name == name {
			return object{"experiment": e.reply()}, nil
		}
	}
	return nil, missing("Could not find experiment with name '%s'", name)
}

func (s *Server) searchExperiments(_ *http.Request, _ object) (object, *refusal) {
	var out []object
	for _, e := range s.experiments {
		if !e.Deleted {
			out = append(out, e.reply())
		}
	}
	return object{"experiments": out}, nil
}

func (s *Server) createExperiment(_ *http.Request, in struct {
	Name     string `json:"name"`
	Location string `json:"artifact_location"`
}) (object, *refusal) {
	if in.Name == "" || utf8.RuneCountInString(in.Name) > 500 {
		return nil, bad("Invalid experiment name")
	}
	for _, e := range s.experiments {
		if e.Name == in.Name {
			return nil, exists("Experiment '%s' already exists.", in.Name)
		}
	}
	e := &experiment{ID: fmt.Sprint(len(s.experiments) + 1), Name: in.Name, Location: in.Location}
	if e.Location == "" {
		e.Location = "mlflow-artifacts:/" + e.ID
		if s.opts.ArtifactRoot != "" {
			e.Location = s.opts.ArtifactRoot + "/" + e.ID
		}
	}
	s.experiments = append(s.experiments, e)
	return object{"experiment_id": e.ID}, nil
}

// location is the artifact root of an active experiment.
func (s *Server) location(id string) (string, *refusal) {
	for _, e := range s.experiments {
		if e.ID != id {
			continue
		}
		if e.Deleted {
			return "", bad("The experiment %s must be in the 'active' state.", id)
		}
		return e.Location, nil
	}
	return "", missing("No Experiment with id=%s exists", id)
}

func (s *Server) createRun(_ *http.Request, in struct {
	ExperimentID string `json:"experiment_id"`
	UserID       string `json:"user_id"`
	Name         string `json:"run_name"`
	Start        int64  `json:"start_time"`
	Tags         []Tag  `json:"tags"`
}) (object, *refusal) {
	root, refused := s.location(in.ExperimentID)
	if refused != nil {
		return nil, refused
	}
	for _, t := range in.Tags {
		if refused := checkName(t.Key); refused != nil {
			return nil, refused
		}
	}
	id := s.id()
	run := &Run{
		ID: id, ExperimentID: in.ExperimentID, Name: in.Name, User: in.UserID, Status: "RUNNING", Start: in.Start,
		ArtifactURI: root + "/" + id + "/artifacts", Tags: toMap(in.Tags), Params: map[string]string{},
	}
	if name, ok := run.Tags["mlflow.runName"]; ok && name != in.Name {
		return nil, bad("Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values")
	}
	run.Tags["mlflow.runName"] = in.Name
	s.runs = append(s.runs, run)
	return object{"run": run.reply()}, nil
}

func (r *Run) reply() object {
	newest := map[string]Metric{}
	for _, m := range r.Metrics {
		old, ok := newest[m.Key]
		if !ok || m.Step > old.Step || (m.Step == old.Step && *m.Timestamp >= *old.Timestamp) {
			newest[m.Key] = m
		}
	}
	metrics := []object{}
	for _, m := range newest {
		metrics = append(metrics, m.reply())
	}
	outputs := []object{}
	for _, id := range r.Outputs {
		outputs = append(outputs, object{"model_id": id, "step": 0})
	}
	stage := "active"
	if r.Deleted {
		stage = "deleted"
	}
	info := object{
		"run_id": r.ID, "run_uuid": r.ID, "experiment_id": r.ExperimentID, "run_name": r.Name, "user_id": r.User, "status": r.Status,
		"start_time": r.Start, "artifact_uri": r.ArtifactURI, "lifecycle_stage": stage,
	}
	if r.End != 0 {
		info["end_time"] = r.End
	}
	return object{
		"info": info, "data": object{"metrics": metrics, "params": toTags(r.Params), "tags": toTags(r.Tags)},
		"inputs": object{"dataset_inputs": r.Inputs}, "outputs": object{"model_outputs": outputs},
	}
}

func (m Metric) reply() object {
	return object{"key": m.Key, "value": stored(m.Value), "timestamp": m.Timestamp, "step": m.Step}
}

func (s *Server) searchRuns(_ *http.Request, in struct {
	Experiments []string `json:"experiment_ids"`
	Filter      string   `json:"filter"`
	Order       []string `json:"order_by"`
	Max         int      `json:"max_results"`
}) (object, *refusal) {
	if in.Max > 50000 {
		return nil, bad("Invalid value for request parameter max_results")
	}
	var found []*Run
	for _, r := range s.runs {
		ok, refused := matches(in.Filter, map[string]string{"status": r.Status, "run_id": r.ID, "run_name": r.Name}, r.Tags, r.Params)
		if refused != nil {
			return nil, refused
		}
		if ok && !r.Deleted && slices.Contains(in.Experiments, r.ExperimentID) {
			found = append(found, r)
		}
	}
	// MLflow's default is newest first.
	ascending := slices.Contains(in.Order, "attributes.start_time ASC")
	sort.SliceStable(found, func(i, j int) bool {
		return ascending && found[i].Start < found[j].Start || !ascending && found[i].Start > found[j].Start
	})
	out := []object{}
	for _, r := range found {
		out = append(out, r.reply())
	}
	return object{"runs": out}, nil
}

func (s *Server) run(id string) (*Run, *refusal) {
	for _, r := range s.runs {
		if r.ID == id {
			return r, nil
		}
	}
	return nil, missing("Run with id=%s not found", id)
}

// active is a run that may be written to.
func (s *Server) active(id string) (*Run, *refusal) {
	r, refused := s.run(id)
	if refused == nil && r.Deleted {
		return nil, bad("The run %s must be in the 'active' state. Current state is deleted.", id)
	}
	return r, refused
}

type runRequest struct {
	RunID  string `json:"run_id"`
	Status string `json:"status"`
	End    int64  `json:"end_time"`
}

func (s *Server) getRun(_ *http.Request, in runRequest) (object, *refusal) {
	r, refused := s.run(in.RunID)
	if refused != nil {
		return nil, refused
	}
	return object{"run": r.reply()}, nil
}

func (s *Server) updateRun(_ *http.Request, in runRequest) (object, *refusal) {
	r, refused := s.active(in.RunID)
	if refused != nil {
		return nil, refused
	}
	// Unknown states are ignored, with 200.
	if slices.Contains([]string{"RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"}, in.Status) {
		r.Status = in.Status
	}
	if in.End != 0 {
		r.End = in.End
	}
	return object{}, nil
}

func (s *Server) deleteRun(_ *http.Request, in runRequest) (object, *refusal) {
	r, refused := s.run(in.RunID)
	if refused == nil {
		r.Deleted = true
	}
	return object{}, refused
}

// nameRule is MLflow's rule for metric, param and tag names.
var nameRule = regexp.MustCompile(`^[/\w.\- :]*$`)

func checkName(name string) *refusal {
	switch clean := path.Clean(name); {
	case name == "" || !nameRule.MatchString(name):
		return bad("Invalid value %q for parameter name", name)
	case utf8.RuneCountInString(name) > 250:
		return bad("'key' exceeds the maximum length of 250 characters")
	case clean != name || name == "." || strings.HasPrefix(name, "..") || strings.HasPrefix(name, "/"):
		return bad("Invalid value %q for parameter name: Names may be treated as files in certain cases", name)
	}
	return nil
}

// shorten is what the server does silently to long values.
func shorten(v string, limit int) string {
	if r := []rune(v); len(r) > limit {
		return string(r[:limit])
	}
	return v
}
