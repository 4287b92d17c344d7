// Package mlflowtest is an in-memory MLflow tracking server for tests. It refuses what MLflow 3.17.2 refuses
// (limits, repeated params and outputs, missing headers, unknown ids), counts what arrives, and fails on demand.
//
// The suite of internal/mlflow runs against this server and against the real one; a rule that only one of them has is
// a bug here.
package mlflowtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options are how a server is started.
type Options struct {
	Username, Password string // basic authentication, if set
	Token              string // bearer authentication, if set
	Version            string // of /version (default 3.17.2)
	NoServeArtifacts   bool   // --no-serve-artifacts: artifact routes answer 503
	PresignedOnly      bool   // --artifacts-presigned-only: a proxied PUT answers 403
	Multipart          bool   // advertise multipart uploads
	ArtifactRoot       string // of new experiments (default "mlflow-artifacts:/<id>"); an s3:// root is kept in memory too
}

// Server is a running fake. All methods may be called concurrently.
type Server struct {
	http *httptest.Server
	opts Options

	mu     sync.Mutex
	called *sync.Cond // calls grew
	faults []*fault
	calls  []Call
	last   int // ids so far
	store
}

// Call is a request that arrived, faults included.
type Call struct {
	Method string
	Path   string // below the server's root
	Header http.Header
	Status int // of the reply; 0 where the connection was dropped
}

// Fault is a failure put before or after a request's handling.
type Fault struct {
	Status     int           // answered instead of handling the request
	Body       string        // with Status
	RetryAfter string        // header, with Status
	Delay      time.Duration // before anything else; the request's context ends it
	Until      chan struct{} // the same, until it is closed
	Drop       bool          // close the connection: before handling, or
	Handle     bool          // with Drop, after it: the reply is lost, the work is done
	Cut        bool          // the reply ends one byte early
}

// fault is a Fault that waits for a matching request.
type fault struct {
	match string // "METHOD path", or a part of it
	Fault
}

// New starts a server that ends with the test.
func New(t testing.TB, opts Options) *Server {
	t.Helper()
	if opts.Version == "" {
		opts.Version = "3.17.2"
	}
	s := &Server{opts: opts, store: newStore()}
	s.called = sync.NewCond(&s.mu)
	s.http = httptest.NewServer(s.entry(s.routes()))
	t.Cleanup(s.http.Close)
	return s
}

// URL is the tracking URI.
func (s *Server) URL() string { return s.http.URL }

// Inject makes the next request whose "METHOD path" contains match fail; several faults for one match queue up.
func (s *Server) Inject(match string, faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		s.faults = append(s.faults, &fault{match, f})
	}
}

// Calls returns the requests whose "METHOD path" contains match ("" for all).
func (s *Server) Calls(match string) []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Call
	for _, c := range s.calls {
		if strings.Contains(c.Method+" "+c.Path, match) {
			out = append(out, c)
		}
	}
	return out
}

// Await waits until n requests whose "METHOD path" contains match were answered.
func (s *Server) Await(match string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.count(match) < n {
		s.called.Wait()
	}
}

// count is the number of answered requests; under the lock.
func (s *Server) count(match string) int {
	n := 0
	for _, c := range s.calls {
		if strings.Contains(c.Method+" "+c.Path, match) {
			n++
		}
	}
	return n
}

// take removes and returns the first fault for a request.
func (s *Server) take(request string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if strings.Contains(request, f.match) {
			s.faults = append(s.faults[:i], s.faults[i+1:]...)
			return f.Fault
		}
	}
	return Fault{}
}

// entry applies faults, authentication and MLflow's rule on Content-Type, and records the call.
func (s *Server) entry(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := Call{Method: r.Method, Path: strings.TrimPrefix(r.URL.Path, "/"), Header: r.Header.Clone()}
		rec := &recorder{ResponseWriter: w}
		record := sync.OnceFunc(func() {
			call.Status = rec.status
			s.mu.Lock()
			defer s.mu.Unlock()
			s.calls = append(s.calls, call)
			s.called.Broadcast()
		})
		defer record()
		f := s.take(call.Method + " " + call.Path)
		f.wait(r)
		switch {
		case f.Status != 0:
			if f.RetryAfter != "" {
				w.Header().Set("Retry-After", f.RetryAfter)
			}
			rec.WriteHeader(f.Status)
			_, _ = io.WriteString(rec, f.Body)
		case f.Drop:
			if f.Handle {
				next.ServeHTTP(httptest.NewRecorder(), r)
			}
			record() // before the client learns of it
			drop(w)
		case f.Cut:
			whole := httptest.NewRecorder()
			next.ServeHTTP(whole, r)
			w.Header().Set("Content-Length", strconv.Itoa(whole.Body.Len()))
			_, _ = rec.Write(whole.Body.Bytes()[:max(0, whole.Body.Len()-1)])
		case !s.authorized(r):
			w.Header().Set("WWW-Authenticate", `Basic realm="mlflow"`)
			rec.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(rec, "You are not authenticated. Please see https://www.mlflow.org/docs/latest/auth/index.html")
		default:
			next.ServeHTTP(rec, r)
		}
	})
}

// wait holds a request back, until its client is gone: which a server only notices once it has read the body.
func (f Fault) wait(r *http.Request) {
	var passed <-chan time.Time
	if f.Delay > 0 {
		passed = time.After(f.Delay)
	}
	if f.Delay <= 0 && f.Until == nil {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	select {
	case <-passed:
	case <-f.Until:
	case <-r.Context().Done():
	}
}

// drop closes the connection without a reply.
func drop(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// authorized checks the credentials; signed URLs and the open routes need none.
func (s *Server) authorized(r *http.Request) bool {
	if strings.HasPrefix(r.URL.Path, "/cloud/") || r.URL.Path == "/health" || strings.HasSuffix(r.URL.Path, "/server-info") {
		return true
	}
	switch {
	case s.opts.Username != "":
		user, password, ok := r.BasicAuth()
		return ok && user == s.opts.Username && password == s.opts.Password
	case s.opts.Token != "":
		return r.Header.Get("Authorization") == "Bearer "+s.opts.Token
	}
	return true
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader remembers the first status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implies 200.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// refusal is an error reply in MLflow's form.
type refusal struct {
	status  int
	code    string
	message string
}

func bad(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, "INVALID_PARAMETER_VALUE", fmt.Sprintf(format, args...)}
}

func missing(format string, args ...any) *refusal {
	return &refusal{http.StatusNotFound, "RESOURCE_DOES_NOT_EXIST", fmt.Sprintf(format, args...)}
}

func exists(format string, args ...any) *refusal {
	return &refusal{http.StatusBadRequest, "RESOURCE_ALREADY_EXISTS", fmt.Sprintf(format, args...)}
}

// unique is how MLflow passes on the database's refusal of a second row.
func unique(table string) *refusal {
	return &refusal{http.StatusBadRequest, "BAD_REQUEST", "(sqlite3.IntegrityError) UNIQUE constraint failed: " + table}
}

func (r *refusal) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(r.status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error_code": r.code, "message": r.message})
}

// object is a JSON object; MLflow ignores fields that it does not know.
type object = map[string]any

// handle adapts a function on a decoded request (body or query) to HTTP, under the lock.
func handle[In any](s *Server, f func(r *http.Request, in In) (object, *refusal)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if r.Method == http.MethodGet || r.Method == http.MethodDelete {
			fromQuery(r, &in)
		} else {
			if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
				bad("Bad Request. Content-Type header is missing.").write(w)
				return
			}
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				_, _ = io.WriteString(w, "<!doctype html><title>500 Internal Server Error</title>")
				return
			}
		}
		s.mu.Lock()
		out, refused := f(r, in)
		s.mu.Unlock()
		if refused != nil {
			refused.write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	}
}

// fromQuery decodes the query's values into in by way of JSON.
func fromQuery(r *http.Request, in any) {
	o := object{}
	for k, v := range r.URL.Query() {
		o[k] = v[0]
	}
	b, _ := json.Marshal(o) // strings only: cannot fail
	_ = json.Unmarshal(b, in)
}

// id makes an id of the form MLflow uses: 32 hex digits.
func (s *Server) id() string {
	s.last++
	return fmt.Sprintf("%032x", s.last)
}
