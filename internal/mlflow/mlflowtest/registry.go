package mlflowtest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

func (s *Server) modelRoutes(mux *http.ServeMux, v2 string) {
	mux.HandleFunc("POST "+v2+"logged-models", handle(s, s.createModel))
	mux.HandleFunc("POST "+v2+"logged-models/search", handle(s, s.searchModels))
	mux.HandleFunc("GET "+v2+"logged-models/{id}", handle(s, s.getModel))
	mux.HandleFunc("PATCH "+v2+"logged-models/{id}", handle(s, s.finalizeModel))
	mux.HandleFunc("DELETE "+v2+"logged-models/{id}", handle(s, s.deleteModel))
	mux.HandleFunc("PATCH "+v2+"logged-models/{id}/tags", handle(s, s.tagModel))
	mux.HandleFunc("POST "+v2+"registered-models/create", handle(s, s.createRegistered))
	mux.HandleFunc("POST "+v2+"registered-models/get-latest-versions", handle(s, s.latestVersions))
	mux.HandleFunc("POST "+v2+"registered-models/alias", handle(s, s.setAlias))
	mux.HandleFunc("GET "+v2+"registered-models/alias", handle(s, s.getAlias))
	mux.HandleFunc("POST "+v2+"model-versions/create", handle(s, s.createVersion))
	mux.HandleFunc("GET "+v2+"model-versions/search", handle(s, s.searchVersions))
	mux.HandleFunc("GET "+v2+"model-versions/get", handle(s, s.getVersion))
	mux.HandleFunc("GET "+v2+"model-versions/get-download-uri", handle(s, s.downloadURI))
	mux.HandleFunc("POST "+v2+"model-versions/set-tag", handle(s, s.tagVersion))
	mux.HandleFunc("DELETE "+v2+"model-versions/delete", handle(s, s.deleteVersion))
}

func (m *Model) reply() object {
	return object{
		"info": object{
			"model_id": m.ID, "experiment_id": m.ExperimentID, "name": m.Name, "source_run_id": m.RunID, "artifact_uri": m.ArtifactURI,
			"status": m.Status, "creation_timestamp_ms": m.Created, "tags": toTags(m.Tags),
		},
		"data": object{"params": toTags(m.Params)},
	}
}

func (s *Server) model(id string) (*Model, *refusal) {
	for _, m := range s.models {
		if m.ID == id {
			return m, nil
		}
	}
	return nil, missing("Logged model with ID '%s' not found.", id)
}

func (s *Server) createModel(_ *http.Request, in struct {
	ExperimentID string `json:"experiment_id"`
	Name         string `json:"name"`
	RunID        string `json:"source_run_id"`
	Params       []Tag  `json:"params"`
	Tags         []Tag  `json:"tags"`
}) (object, *refusal) {
	root, refused := s.location(in.ExperimentID)
	if refused != nil {
		return nil, refused
	}
	if strings.ContainsAny(in.Name, `/:.%"'`) {
		return nil, bad("Invalid model name (%s) provided.", in.Name)
	}
	id := "m-" + s.id()
	m := &Model{
		ID: id, ExperimentID: in.ExperimentID, Name: in.Name, RunID: in.RunID, ArtifactURI: root + "/models/" + id + "/artifacts",
		Status: "LOGGED_MODEL_PENDING", Created: int64(s.last), Tags: toMap(in.Tags), Params: toMap(in.Params),
	}
	s.models = append(s.models, m)
	return object{"model": m.reply()}, nil
}

func (s *Server) searchModels(_ *http.Request, in struct {
	Experiments []string `json:"experiment_ids"`
	Filter      string   `json:"filter"`
}) (object, *refusal) {
	out := []object{}
	for _, m := range slices.Backward(s.models) { // newest first
		ok, refused := matches(in.Filter, map[string]string{"name": m.Name, "model_id": m.ID, "source_run_id": m.RunID}, m.Tags, m.Params)
		if refused != nil {
			return nil, refused
		}
		if ok && slices.Contains(in.Experiments, m.ExperimentID) {
			out = append(out, m.reply())
		}
	}
	return object{"models": out}, nil
}

func (s *Server) getModel(r *http.Request, _ object) (object, *refusal) {
	m, refused := s.model(r.PathValue("id"))
	if refused != nil {
		return nil, refused
	}
	return object{"model": m.reply()}, nil
}

func (s *Server) finalizeModel(r *http.Request, in struct {
	ID     string `json:"model_id"`
	Status string `json:"status"`
}) (object, *refusal) {
	m, refused := s.model(r.PathValue("id"))
	if refused != nil {
		return nil, refused
	}
	if in.ID == "" {
		return nil, bad("Missing value for required parameter 'model_id'.")
	}
	m.Status = in.Status
	return object{"model": m.reply()}, nil
}

func (s *Server) deleteModel(r *http.Request, _ object) (object, *refusal) {
	m, refused := s.model(r.PathValue("id"))
	s.models = slices.DeleteFunc(s.models, func(o *Model) bool { return o == m })
	return object{}, refused
}

func (s *Server) tagModel(r *http.Request, in struct {
	Tags []Tag `json:"tags"`
}) (object, *refusal) {
	m, refused := s.model(r.PathValue("id"))
	if refused != nil {
		return nil, refused
	}
	for _, t := range in.Tags {
		m.Tags[t.Key] = t.Value
	}
	return object{}, nil
}

// versionRequest is the union of what the registry's calls take.
type versionRequest struct {
	Name        string `json:"name"`
	Version     string `json:"version"`
	Source      string `json:"source"`
	ModelID     string `json:"model_id"`
	RunID       string `json:"run_id"`
	Description string `json:"description"`
	Tags        []Tag  `json:"tags"`
	Alias       string `json:"alias"`
	Key         string `json:"key"`
	Value       string `json:"value"`
	Filter      string `json:"filter"`
}

func (s *Server) createRegistered(_ *http.Request, in versionRequest) (object, *refusal) {
	if in.Name == "" || strings.ContainsAny(in.Name, "/:") {
		return nil, bad("Invalid name: '%s'", in.Name)
	}
	if s.registry[in.Name] != nil {
		return nil, exists("Registered Model (name=%s) already exists.", in.Name)
	}
	s.registry[in.Name] = &registered{Description: in.Description, Tags: toMap(in.Tags), Aliases: map[string]string{}}
	return object{"registered_model": object{"name": in.Name}}, nil
}

func (s *Server) named(name string) (*registered, *refusal) {
	if r := s.registry[name]; r != nil {
		return r, nil
	}
	return nil, missing("Registered Model with name=%s not found", name)
}

func (s *Server) version(in versionRequest) (*Version, *refusal) {
	r, refused := s.named(in.Name)
	if refused != nil {
		return nil, refused
	}
	for _, v := range r.Versions {
		if v.Version == in.Version && !v.Deleted {
			return v, nil
		}
	}
	return nil, missing("Model Version (name=%s, version=%s) not found", in.Name, in.Version)
}

func (s *Server) versionReply(v *Version) object {
	aliases := []string{}
	for alias, version := range s.registry[v.Name].Aliases {
		if version == v.Version {
			aliases = append(aliases, alias)
		}
	}
	return object{
		"name": v.Name, "version": v.Version, "source": v.Source, "run_id": v.RunID, "status": "READY", "description": v.Description,
		"tags": toTags(v.Tags), "aliases": aliases,
	}
}

func (s *Server) createVersion(_ *http.Request, in versionRequest) (object, *refusal) {
	r, refused := s.named(in.Name)
	if refused != nil {
		return nil, refused
	}
	if in.Source != "models:/"+in.ModelID {
		return nil, bad("Invalid model version source: '%s'. Either 'model_id' is missing or it does not match", in.Source)
	}
	if _, refused := s.model(in.ModelID); refused != nil {
		return nil, &refusal{http.StatusInternalServerError, "INTERNAL_ERROR", refused.message}
	}
	v := &Version{
		Name: in.Name, Version: strconv.Itoa(len(r.Versions) + 1), Source: in.Source, ModelID: in.ModelID, RunID: in.RunID,
		Description: in.Description, Tags: toMap(in.Tags),
	}
	r.Versions = append(r.Versions, v)
	return object{"model_version": s.versionReply(v)}, nil
}

func (s *Server) searchVersions(_ *http.Request, in versionRequest) (object, *refusal) {
	out := []object{}
	for _, r := range s.registry {
		for _, v := range r.Versions {
			ok, refused := matches(in.Filter, map[string]string{"name": v.Name, "run_id": v.RunID}, v.Tags, nil)
			if refused != nil {
				return nil, refused
			}
			if ok && !v.Deleted {
				out = append(out, s.versionReply(v))
			}
		}
	}
	return object{"model_versions": out}, nil
}

func (s *Server) getVersion(_ *http.Request, in versionRequest) (object, *refusal) {
	v, refused := s.version(in)
	if refused != nil {
		return nil, refused
	}
	return object{"model_version": s.versionReply(v)}, nil
}

func (s *Server) downloadURI(_ *http.Request, in versionRequest) (object, *refusal) {
	v, refused := s.version(in)
	if refused != nil {
		return nil, refused
	}
	m, refused := s.model(v.ModelID)
	if refused != nil {
		return nil, refused
	}
	return object{"artifact_uri": m.ArtifactURI}, nil
}

func (s *Server) tagVersion(_ *http.Request, in versionRequest) (object, *refusal) {
	v, refused := s.version(in)
	if refused == nil {
		v.Tags[in.Key] = in.Value
	}
	return object{}, refused
}

func (s *Server) deleteVersion(r *http.Request, _ object) (object, *refusal) {
	var in versionRequest
	if err := decodeBody(r, &in); err != nil {
		return nil, bad("cannot parse the body")
	}
	v, refused := s.version(in)
	if refused == nil {
		v.Deleted = true
	}
	return object{}, refused
}

func (s *Server) latestVersions(_ *http.Request, in versionRequest) (object, *refusal) {
	r, refused := s.named(in.Name)
	if refused != nil {
		return nil, refused
	}
	out := []object{}
	for _, v := range slices.Backward(r.Versions) {
		if !v.Deleted {
			out = append(out, s.versionReply(v))
			break
		}
	}
	return object{"model_versions": out}, nil
}

func (s *Server) setAlias(_ *http.Request, in versionRequest) (object, *refusal) {
	if _, refused := s.version(in); refused != nil {
		return nil, refused
	}
	if in.Alias == "" || strings.EqualFold(in.Alias, "latest") {
		return nil, bad("Invalid alias name: '%s'", in.Alias)
	}
	s.registry[in.Name].Aliases[in.Alias] = in.Version
	return object{}, nil
}

func (s *Server) getAlias(_ *http.Request, in versionRequest) (object, *refusal) {
	r, refused := s.named(in.Name)
	if refused != nil {
		return nil, refused
	}
	version, ok := r.Aliases[in.Alias]
	if !ok {
		return nil, bad("Registered model alias %s not found.", in.Alias)
	}
	v, refused := s.version(versionRequest{Name: in.Name, Version: version})
	if refused != nil {
		return nil, refused
	}
	return object{"model_version": s.versionReply(v)}, nil
}
