package hubtest

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// signature stands for the credential in a signed URL. Tests look for it in errors and logs, where it must not be.
const signature = "X-Amz-Signature=hubtest-signed-url-secret"

// Hub is the hub's side of the protocol. The zero value is not usable; see [New] and [Start].
type Hub struct {
	root       string
	storageURL string // where large files are
	digests    digests

	mu       sync.Mutex
	gated    map[string]string // repository -> token that may read its files
	private  map[string]string // repository -> token that may know of it
	faults   map[Host][]fault
	requests []Request
}

// Host is one of the two hosts that a hub consists of.
type Host string

// The hosts.
const (
	API     Host = "api"
	Storage Host = "storage"
)

// Request is a request that came in.
type Request struct {
	Host   Host
	Method string
	Path   string // unescaped
	Range  string // header
	Token  string // of the Authorization header, "" without one
}

// New returns a hub of the repositories below root, whose large files are served at storageURL.
func New(root, storageURL string) *Hub {
	return &Hub{root: root, storageURL: storageURL, gated: map[string]string{}, private: map[string]string{}, faults: map[Host][]fault{}}
}

// Server is a hub that runs, on two ports of 127.0.0.1.
type Server struct {
	*Hub
	URL string // HF_ENDPOINT
}

// Start runs a hub until the test ends.
func Start(t testing.TB, root string) *Server {
	t.Helper()
	storage := httptest.NewUnstartedServer(nil)
	h := New(root, StorageURL(storage.Listener.Addr()))
	storage.Config.Handler = h.Storage()
	storage.Start()
	t.Cleanup(storage.Close)
	api := httptest.NewServer(h.API())
	t.Cleanup(api.Close)
	return &Server{Hub: h, URL: api.URL}
}

// StorageURL is the URL of a listener on the loopback address by another host name than the hub's: huggingface_hub does
// not look at the port and would send the token to the same name.
func StorageURL(addr net.Addr) string {
	_, port, _ := net.SplitHostPort(addr.String())
	return "http://localhost:" + port
}

// Gate lets only the holder of token download the files of a repository ("models/owner/name").
func (h *Hub) Gate(repo, token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gated[repo] = token
}

// Hide makes a repository private: without token it seems not to exist.
func (h *Hub) Hide(repo, token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.private[repo] = token
}

// Requests returns what has come in, in order.
func (h *Hub) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// Count returns how many requests came to a host for a path with the suffix.
func (h *Hub) Count(host Host, suffix string) int {
	n := 0
	for _, r := range h.Requests() {
		if r.Host == host && strings.HasSuffix(r.Path, suffix) {
			n++
		}
	}
	return n
}

// API is the handler behind HF_ENDPOINT.
func (h *Hub) API() http.Handler { return h.front(API, http.HandlerFunc(h.api)) }

// Storage is the handler behind the storage URL.
func (h *Hub) Storage() http.Handler { return h.front(Storage, http.HandlerFunc(h.storage)) }

// front records requests and applies faults.
func (h *Hub) front(host Host, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, Request{host, r.Method, r.URL.Path, r.Header.Get("Range"), token(r)})
		f := h.takeFault(host, r.URL.Path)
		h.mu.Unlock()
		if f != nil {
			f(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func token(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// refuse answers as the hub does: the reason is in headers, the body is for people.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	if code != "" {
		w.Header().Set("X-Error-Code", code)
	}
	w.Header().Set("X-Error-Message", message)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message})
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// api routes by the escaped path, since a revision may hold escaped slashes:
//
//	/api/{models,datasets}/owner/name[/{revision,tree,paths-info}/rev[/path]]
//	/api/resolve-cache/{models,datasets}/owner/name/commit/path
//	/[datasets/]owner/name/resolve/rev/path
func (h *Hub) api(w http.ResponseWriter, r *http.Request) {
	segments := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
	for i, s := range segments {
		segments[i], _ = url.PathUnescape(s)
	}
	isAPI, verb := segments[0] == "api", "resolve"
	if isAPI {
		segments = segments[1:]
		if len(segments) > 0 && segments[0] == "resolve-cache" {
			isAPI, verb, segments = false, "resolve-cache", segments[1:]
		}
	}
	typ := "models"
	if len(segments) > 0 && (segments[0] == "models" || segments[0] == "datasets") {
		typ, segments = segments[0], segments[1:]
	}
	if len(segments) < 2 {
		refuse(w, http.StatusNotFound, "", "Sorry, we can't find the page you are looking for.")
		return
	}
	rp := repo{typ: typ, name: segments[0] + "/" + segments[1]}
	rp.dir = filepath.Join(h.root, typ, filepath.FromSlash(path.Clean("/"+rp.name)))
	segments = segments[2:]
	if !isAPI && verb == "resolve" {
		if len(segments) == 0 || segments[0] != "resolve" {
			refuse(w, http.StatusNotFound, "", "only /resolve/ is served")
			return
		}
		segments = segments[1:]
	}
	if !h.admit(w, r, rp, !isAPI) {
		return
	}
	if isAPI {
		h.answer(w, r, rp, segments)
		return
	}
	if len(segments) < 2 {
		refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	h.resolve(w, r, rp, verb, segments[0], strings.Join(segments[1:], "/"))
}

// admit checks that the repository exists and that the token may see it and, if files are wanted, read it.
func (h *Hub) admit(w http.ResponseWriter, r *http.Request, rp repo, files bool) bool {
	h.mu.Lock()
	private, isPrivate := h.private[rp.key()]
	gated, isGated := h.gated[rp.key()]
	h.mu.Unlock()
	_, err := os.Stat(rp.dir)
	switch {
	case err != nil, isPrivate && token(r) != private:
		status, message := http.StatusUnauthorized, "Invalid username or password." // what an anonymous caller is told
		if token(r) != "" {
			status, message = http.StatusNotFound, "Repository not found"
		}
		refuse(w, status, "RepoNotFound", message)
	case files && isGated && token(r) == "":
		refuse(w, http.StatusUnauthorized, "GatedRepo", "Access to model "+rp.name+" is restricted. You must have access to it and be authenticated to access it. Please log in.")
	case files && isGated && token(r) != gated:
		refuse(w, http.StatusForbidden, "GatedRepo", "Access to model "+rp.name+" is restricted and you are not in the authorized list.")
	default:
		return true
	}
	return false
}

// answer is the JSON API of a repository.
func (h *Hub) answer(w http.ResponseWriter, r *http.Request, rp repo, segments []string) {
	verb, rev, below := "revision", "main", ""
	if len(segments) >= 2 {
		verb, rev, below = segments[0], segments[1], strings.Join(segments[2:], "/")
	}
	commit, entries, err := rp.revision(&h.digests, rev)
	if err != nil {
		refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+rev)
		return
	}
	switch verb {
	case "revision":
		reply(w, rp.info(commit, entries, r.URL.Query().Has("blobs")))
	case "tree":
		reply(w, tree(entries, below, r.URL.Query().Get("recursive") == "True" || r.URL.Query().Get("recursive") == "true"))
	case "paths-info":
		_ = r.ParseForm()
		all := tree(entries, "", true)
		reply(w, slices.DeleteFunc(all, func(n node) bool { return !slices.Contains(r.Form["paths"], n.Path) }))
	default:
		refuse(w, http.StatusNotFound, "", "unknown verb "+verb)
	}
}

// resolve serves a file, or says where it is.
func (h *Hub) resolve(w http.ResponseWriter, r *http.Request, rp repo, verb, rev, name string) {
	commit, entries, err := rp.revision(&h.digests, rev)
	if err != nil {
		refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+rev)
		return
	}
	i := slices.IndexFunc(entries, func(e entry) bool { return e.path == name })
	w.Header().Set("X-Repo-Commit", commit)
	w.Header().Set("Accept-Ranges", "bytes")
	if i < 0 {
		refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
		return
	}
	e := entries[i]
	w.Header().Set("X-Linked-Size", strconv.FormatInt(e.size, 10))
	switch {
	case e.sha256 != "":
		w.Header().Set("X-Linked-Etag", strconv.Quote(e.sha256))
		http.Redirect(w, r, h.storageURL+"/lfs/"+e.sha256+"/"+url.PathEscape(path.Base(e.path))+"?"+signature, http.StatusFound)
	case verb == "resolve":
		w.Header().Set("X-Linked-Etag", strconv.Quote(e.oid))
		target := url.URL{Path: "/api/resolve-cache/" + rp.key() + "/" + commit + "/" + name}
		http.Redirect(w, r, target.EscapedPath()+"?etag="+e.oid, http.StatusTemporaryRedirect)
	default:
		serveFile(w, r, e.file, e.oid)
	}
}

// storage serves large files by their digest. Like S3 it refuses a request with two credentials.
func (h *Hub) storage(w http.ResponseWriter, r *http.Request) {
	switch parts := strings.Split(r.URL.Path, "/"); {
	case r.Header.Get("Authorization") != "":
		http.Error(w, "Only one auth mechanism allowed", http.StatusBadRequest)
	case r.URL.RawQuery != signature:
		http.Error(w, "AccessDenied", http.StatusForbidden)
	case len(parts) != 4:
		http.NotFound(w, r)
	default:
		for key, value := range h.digests.seen.Range {
			if e := value.(entry); e.sha256 == parts[2] {
				serveFile(w, r, key.(digestKey).file, e.sha256)
				return
			}
		}
		http.NotFound(w, r)
	}
}

func serveFile(w http.ResponseWriter, r *http.Request, file, etag string) {
	f, err := os.Open(file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	w.Header().Set("ETag", strconv.Quote(etag))
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
}
