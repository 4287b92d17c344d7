package mlflowtest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
)

// decodeBody reads a JSON body where the method would not suggest one.
func decodeBody(r *http.Request, in any) error { return json.NewDecoder(r.Body).Decode(in) }

func (s *Server) artifactRoutes(mux *http.ServeMux, v2 string) {
	const base = "/api/2.0/mlflow-artifacts/"
	proxied := func(h http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if s.opts.NoServeArtifacts {
				http.Error(w, "Endpoint: "+r.URL.Path+" disabled due to the mlflow server running with `--no-serve-artifacts`. "+
					"To enable artifacts server functionality, run `mlflow server` with `--serve-artifacts`", http.StatusServiceUnavailable)
				return
			}
			h(w, r)
		}
	}
	mux.HandleFunc("GET "+base+"artifacts", proxied(handle(s, s.listFiles)))
	mux.HandleFunc("GET "+base+"artifacts/{path...}", proxied(func(w http.ResponseWriter, r *http.Request) { s.serveFile(w, r.PathValue("path")) }))
	mux.HandleFunc("PUT "+base+"artifacts/{path...}", proxied(s.putFile))
	mux.HandleFunc("POST "+base+"mpu/create/{path...}", proxied(handle(s, s.createParts)))
	mux.HandleFunc("POST "+base+"mpu/complete/{path...}", proxied(handle(s, s.completeParts)))
	mux.HandleFunc("POST "+base+"mpu/abort/{path...}", proxied(handle(s, s.abortParts)))
	mux.HandleFunc("POST "+v2+"artifacts/presigned-upload-url", handle(s, s.signUpload))
	mux.HandleFunc("GET "+v2+"logged-models/{id}/artifacts/directories", handle(s, s.listModel))
	mux.HandleFunc("GET /ajax-api/2.0/mlflow/logged-models/{id}/artifacts/files", func(w http.ResponseWriter, r *http.Request) {
		s.serveOwned(w, r.PathValue("id"), "", r.URL.Query().Get("artifact_file_path"))
	})
	mux.HandleFunc("GET "+v2+"artifacts/list", handle(s, s.listRun))
	mux.HandleFunc("GET /get-artifact", func(w http.ResponseWriter, r *http.Request) {
		s.serveOwned(w, "", r.URL.Query().Get("run_id"), r.URL.Query().Get("path"))
	})
	mux.HandleFunc("PUT /cloud/{path...}", s.putCloud)
}

// key is the place of an artifact URI in files.
func key(artifactURI, rel string) string {
	u, err := url.Parse(artifactURI)
	if err != nil {
		return rel
	}
	return strings.TrimPrefix(path.Join(u.Host, u.Path, rel), "/")
}

func (s *Server) putFile(w http.ResponseWriter, r *http.Request) {
	if s.opts.PresignedOnly {
		(&refusal{http.StatusForbidden, "PERMISSION_DENIED", "This server accepts uploads by presigned URL only."}).write(w)
		return
	}
	s.save(w, r, r.PathValue("path"))
}

// save stores a whole body; one that is cut stores nothing.
func (s *Server) save(w http.ResponseWriter, r *http.Request, name string) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "cut", http.StatusBadRequest)
		return
	}
	if slices.Contains(strings.Split(name, "/"), "..") || strings.Contains(name, "#") {
		bad("Invalid path").write(w)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = data
}

func (s *Server) serveFile(w http.ResponseWriter, name string) {
	s.mu.Lock()
	data, ok := s.files[name]
	s.mu.Unlock()
	if !ok {
		missing("No such artifact: '%s'", name).write(w)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data)
}

func (s *Server) serveOwned(w http.ResponseWriter, modelID, runID, rel string) {
	s.mu.Lock()
	uri, refused := s.ownerURI(modelID, runID)
	s.mu.Unlock()
	if refused != nil {
		refused.write(w)
		return
	}
	s.serveFile(w, key(uri, rel))
}

func (s *Server) ownerURI(modelID, runID string) (string, *refusal) {
	if modelID != "" {
		m, refused := s.model(modelID)
		if refused != nil {
			return "", refused
		}
		return m.ArtifactURI, nil
	}
	r, refused := s.run(runID)
	if refused != nil {
		return "", refused
	}
	return r.ArtifactURI, nil
}

// entries lists one directory of files; names are joined to prefix.
func (s *Server) entries(dir, prefix string) object {
	sizes := map[string]int{} // -1: a directory
	for name, data := range s.files {
		rel, ok := strings.CutPrefix(name, strings.TrimSuffix(dir, "/")+"/")
		if !ok {
			continue
		}
		if first, _, deeper := strings.Cut(rel, "/"); deeper {
			sizes[first] = -1
		} else {
			sizes[rel] = len(data)
		}
	}
	out := []object{}
	for name, size := range sizes {
		o := object{"path": path.Join(prefix, name), "is_dir": size < 0}
		if size >= 0 {
			o["file_size"] = size
		}
		out = append(out, o)
	}
	return object{"files": out}
}

func (s *Server) listFiles(r *http.Request, _ object) (object, *refusal) {
	return s.entries(r.URL.Query().Get("path"), ""), nil
}

func (s *Server) listModel(r *http.Request, _ object) (object, *refusal) {
	uri, refused := s.ownerURI(r.PathValue("id"), "")
	dir := r.URL.Query().Get("artifact_directory_path")
	return s.entries(key(uri, dir), dir), refused
}

func (s *Server) listRun(r *http.Request, _ object) (object, *refusal) {
	uri, refused := s.ownerURI("", r.URL.Query().Get("run_id"))
	dir := r.URL.Query().Get("path")
	return s.entries(key(uri, dir), dir), refused
}

// signUpload signs a URL for an s3:// artifact; the cloud is this server.
func (s *Server) signUpload(r *http.Request, in struct {
	ModelID string `json:"model_id"`
	RunID   string `json:"run_id"`
	Path    string `json:"path"`
}) (object, *refusal) {
	if (in.ModelID == "") == (in.RunID == "") {
		return nil, bad("Exactly one of run_id and model_id must be provided.")
	}
	uri, refused := s.ownerURI(in.ModelID, in.RunID)
	if refused != nil {
		return nil, refused
	}
	if !strings.HasPrefix(uri, "s3://") {
		return nil, bad("Presigned upload is not supported for proxied artifact storage")
	}
	address := "http://" + r.Host + "/cloud/" + key(uri, in.Path) + "?X-Amz-Signature=secret"
	return object{"presigned_url": address, "headers": object{"Content-Type": "application/octet-stream"}}, nil
}

// putCloud is the object store behind signed URLs: it refuses a foreign Authorization and wants the signed header.
func (s *Server) putCloud(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if r.Header.Get("Authorization") != "" || q.Get("X-Amz-Signature") != "secret" {
		http.Error(w, "<Error><Code>InvalidArgument</Code></Error>", http.StatusBadRequest)
		return
	}
	upload := q.Get("uploadId")
	if upload == "" {
		if r.Header.Get("Content-Type") != "application/octet-stream" {
			http.Error(w, "<Error><Code>SignatureDoesNotMatch</Code></Error>", http.StatusForbidden)
			return
		}
		s.save(w, r, r.PathValue("path"))
		return
	}
	data, err := io.ReadAll(r.Body)
	number, _ := strconv.Atoi(q.Get("partNumber")) // ours
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || s.parts[upload] == nil {
		http.Error(w, "<Error><Code>NoSuchUpload</Code></Error>", http.StatusNotFound)
		return
	}
	s.parts[upload][number] = data
	w.Header().Set("ETag", fmt.Sprintf(`"%d-%d"`, number, len(data)))
}

// partsRequest is the body of the three multipart calls.
type partsRequest struct {
	Path     string `json:"path"`
	NumParts int    `json:"num_parts"`
	UploadID string `json:"upload_id"`
	Parts    []struct {
		Number int    `json:"part_number"`
		ETag   string `json:"etag"`
	} `json:"parts"`
}

func (s *Server) createParts(r *http.Request, in partsRequest) (object, *refusal) {
	if in.NumParts < 1 || in.NumParts > 10000 {
		return nil, bad("Invalid num_parts %d", in.NumParts)
	}
	id := s.id()
	s.parts[id] = map[int][]byte{}
	var credentials []object
	for n := 1; n <= in.NumParts; n++ {
		address := fmt.Sprintf("http://%s/cloud/part?partNumber=%d&uploadId=%s&X-Amz-Signature=secret", r.Host, n, id)
		credentials = append(credentials, object{"url": address, "part_number": n})
	}
	return object{"upload_id": id, "credentials": credentials}, nil
}

func (s *Server) completeParts(r *http.Request, in partsRequest) (object, *refusal) {
	parts := s.parts[in.UploadID]
	if parts == nil || len(in.Parts) != len(parts) {
		return nil, bad("upload %s: got %d parts, want %d", in.UploadID, len(in.Parts), len(parts))
	}
	var whole []byte
	for i, p := range in.Parts {
		data := parts[i+1]
		if p.Number != i+1 || p.ETag != fmt.Sprintf(`"%d-%d"`, p.Number, len(data)) || (i < len(in.Parts)-1 && len(data) < 5<<20) {
			return nil, bad("part %d: wrong number, ETag or size", p.Number)
		}
		whole = append(whole, data...)
	}
	delete(s.parts, in.UploadID)
	s.files[path.Join(r.PathValue("path"), path.Base(in.Path))] = whole
	return object{}, nil
}

func (s *Server) abortParts(_ *http.Request, in partsRequest) (object, *refusal) {
	delete(s.parts, in.UploadID)
	s.aborted++
	return object{}, nil
}
