package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Snapshot is a repository at one commit.
type Snapshot struct {
	Type   RepoType `json:"type"`
	Name   string   `json:"name"`   // owner/name
	Commit string   `json:"commit"` // 40 hex digits
	Files  []File   `json:"files"`  // in the hub's order
}

// File is a file of a snapshot, as the hub states it.
type File struct {
	Path   string `json:"path"`              // slash-separated, relative
	Size   int64  `json:"size"`              // bytes
	SHA256 string `json:"sha256,omitempty"`  // of a file in large file storage
	GitOID string `json:"git_oid,omitempty"` // SHA-1 of the git blob, for the other files
}

// Find returns the file at path.
func (s *Snapshot) Find(path string) (File, bool) {
	for _, f := range s.Files {
		if f.Path == path {
			return f, true
		}
	}
	return File{}, false
}

// Bounds on what the hub may answer.
const (
	maxListing = 64 << 20
	maxFiles   = 200_000
)

var (
	sha256RE = regexp.MustCompile(`^[0-9a-f]{64}$`)
	oidRE    = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// Resolve finds the commit that revision means now, and its files. A commit that was resolved before is answered from
// the cache; so is every revision when the client is offline.
func (c *Client) Resolve(ctx context.Context, typ RepoType, name, revision string) (*Snapshot, error) {
	at := Error{Op: "resolve " + string(typ), Repo: name, Revision: revision}
	switch {
	case !validName(name) || !validRevision(revision):
		return nil, at.with(ErrInvalid, "malformed name or revision")
	case c.cfg.CacheDir == "":
		return nil, at.with(ErrInvalid, "no cache folder is configured")
	case !c.cfg.allowsRepo(typ, name):
		return nil, at.with(ErrNotAllowed, "DURATUNE_HUB_REPOS allows "+strings.Join(c.cfg.Repos, ", "))
	}
	if c.cfg.Offline || IsCommit(revision) {
		snap, err := c.cached(typ, name, revision)
		if err == nil {
			return snap, nil
		}
		if c.cfg.Offline {
			return nil, at.with(ErrOffline, "HF_HUB_OFFLINE is set and the revision is not in "+c.cfg.CacheDir)
		}
	}
	var snap *Snapshot
	err := c.retry(ctx, func() (_ bool, err error) {
		snap, err = c.list(ctx, at, typ)
		return false, err
	})
	if err != nil {
		return nil, err
	}
	return snap, c.remember(snap, revision)
}

// list asks the hub for a revision's commit and files.
func (c *Client) list(ctx context.Context, at Error, typ RepoType) (*Snapshot, error) {
	segments := append([]string{"api", string(typ) + "s"}, strings.Split(at.Repo, "/")...)
	resp, err := c.get(ctx, at, c.url("blobs=true", append(segments, "revision", at.Revision)...), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxListing+1))
	if err != nil {
		return nil, at.transport(ctx, err)
	}
	if len(body) > maxListing {
		return nil, at.with(ErrCorrupt, fmt.Sprintf("the answer is longer than %d bytes", maxListing))
	}
	snap, id, err := parseListing(body, typ, at.Repo)
	if err != nil {
		return nil, at.with(ErrCorrupt, "the hub's answer: "+scrub(err.Error()))
	}
	if id != "" && !c.cfg.allowsRepo(typ, id) { // a repository that has moved answers by its new name
		return nil, at.with(ErrNotAllowed, fmt.Sprintf("it is now %q, and DURATUNE_HUB_REPOS allows %s", id, strings.Join(c.cfg.Repos, ", ")))
	}
	return snap, nil
}

// parseListing reads the answer of /api/…/revision/… and checks all that later becomes a path or a file name.
func parseListing(body []byte, typ RepoType, name string) (snap *Snapshot, id string, err error) {
	var answer struct {
		ID       string `json:"id"`
		SHA      string `json:"sha"`
		Siblings []struct {
			Path   string `json:"rfilename"`
			Size   int64  `json:"size"`
			BlobID string `json:"blobId"`
			LFS    *struct {
				SHA256 string `json:"sha256"`
				Size   int64  `json:"size"`
			} `json:"lfs"`
		} `json:"siblings"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, "", err
	}
	if !IsCommit(answer.SHA) {
		return nil, "", fmt.Errorf("sha %.80q is not a commit", answer.SHA)
	}
	if len(answer.Siblings) > maxFiles {
		return nil, "", fmt.Errorf("%d files, at most %d are read", len(answer.Siblings), maxFiles)
	}
	snap = &Snapshot{Type: typ, Name: name, Commit: answer.SHA}
	for _, s := range answer.Siblings {
		f := File{Path: s.Path, Size: s.Size, GitOID: s.BlobID}
		if s.LFS != nil { // the blob is a pointer then
			f = File{Path: s.Path, Size: s.LFS.Size, SHA256: s.LFS.SHA256}
		}
		if err := f.check(); err != nil {
			return nil, "", err
		}
		snap.Files = append(snap.Files, f)
	}
	return snap, answer.ID, nil
}

// check refuses what cannot be stored or verified.
func (f File) check() error {
	switch {
	case !fs.ValidPath(f.Path) || !filepath.IsLocal(filepath.FromSlash(f.Path)) || strings.ContainsAny(f.Path, "\\\x00"):
		return fmt.Errorf("file name %.200q is not a plain path", f.Path)
	case f.Size < 0:
		return fmt.Errorf("file %.200q has size %d", f.Path, f.Size)
	case !sha256RE.MatchString(f.SHA256) && !oidRE.MatchString(f.GitOID):
		return fmt.Errorf("file %.200q has no digest", f.Path)
	}
	return nil
}

// repoDir holds what is known of a repository. Names hold no "--", so the mapping is one to one.
func (c *Client) repoDir(typ RepoType, name string) string {
	return filepath.Join(c.cfg.CacheDir, "repos", string(typ)+"s--"+strings.ReplaceAll(name, "/", "--"))
}

// remember stores a snapshot's listing and, for a branch or a tag, what it meant last.
func (c *Client) remember(snap *Snapshot, revision string) error {
	dir := c.repoDir(snap.Type, snap.Name)
	listing, err := json.Marshal(snap)
	if err != nil {
		return fmt.Errorf("hub: store listing of %s: %w", snap.Name, err)
	}
	if err := writeFile(filepath.Join(dir, snap.Commit+".json"), listing); err != nil {
		return err
	}
	if IsCommit(revision) {
		return nil
	}
	return writeFile(filepath.Join(dir, "refs", url.PathEscape(revision)), []byte(snap.Commit))
}

// cached returns a snapshot that remember stored.
func (c *Client) cached(typ RepoType, name, revision string) (*Snapshot, error) {
	dir := c.repoDir(typ, name)
	if !IsCommit(revision) {
		commit, err := os.ReadFile(filepath.Join(dir, "refs", url.PathEscape(revision)))
		if err != nil {
			return nil, err
		}
		if revision = string(commit); !IsCommit(revision) {
			return nil, errors.New("malformed reference in the cache")
		}
	}
	body, err := os.ReadFile(filepath.Join(dir, revision+".json"))
	if err != nil {
		return nil, err
	}
	snap := new(Snapshot)
	return snap, json.Unmarshal(body, snap)
}

// writeFile writes a small file as a whole.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("hub: make cache folder: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return fmt.Errorf("hub: write to cache: %w", err)
	}
	defer os.Remove(f.Name()) // a no-op once it has been renamed
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("hub: write to cache: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("hub: write to cache: %w", err)
	}
	return nil
}
