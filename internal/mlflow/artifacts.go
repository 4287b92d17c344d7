package mlflow

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Progress is told how many bytes of a transfer are done so far; it may be nil. Calls come from one goroutine at a
// time. The count starts again when a transfer is repeated.
type Progress func(done int64)

// File is a stored artifact; Path is relative to the artifact URI.
type File struct {
	Path  string
	Bytes int64
}

// artifactStore is one way to reach the files below an artifact URI. Paths are relative to it and clean.
type artifactStore interface {
	upload(ctx context.Context, rel string, body io.ReadSeeker, size int64, progress Progress) error
	// list returns the entries of one directory, by full relative path; dirs are walked by the caller.
	list(ctx context.Context, dir string) (files []File, dirs []string, err error)
	// open returns the content and its size, -1 if unknown.
	open(ctx context.Context, rel string) (io.ReadCloser, int64, error)
}

// UploadArtifact writes body, from its current position, as the file rel below artifactURI, replacing what is there.
// The scheme decides the way: mlflow-artifacts goes through the tracking server (in parts where it asks for that), s3
// directly if the AWS chain has credentials, else by presigned URLs.
func (c *Client) UploadArtifact(ctx context.Context, artifactURI, rel string, body io.ReadSeeker, size int64, progress Progress) error {
	op := "upload " + rel
	if !cleanRel(rel) {
		return invalid(op, "path: want a clean relative path")
	}
	store, err := c.store(ctx, op, artifactURI)
	if err != nil {
		return err
	}
	return store.upload(ctx, rel, body, size, progress)
}

// UploadDir uploads every regular file below dir, in path order and last (if present) the file "MLmodel", so that a
// model that can be opened is whole. progress counts the bytes of all files.
func (c *Client) UploadDir(ctx context.Context, artifactURI, dir string, progress Progress) error {
	var files []File
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		files = append(files, File{filepath.ToSlash(rel), info.Size()})
		return err
	})
	if err != nil {
		return fmt.Errorf("upload folder: %w", err)
	}
	slices.SortStableFunc(files, func(a, b File) int { return cmp.Compare(isMLmodel(a), isMLmodel(b)) })
	var before int64
	for _, f := range files {
		if err := c.uploadFile(ctx, artifactURI, filepath.Join(dir, filepath.FromSlash(f.Path)), f, offset(progress, before)); err != nil {
			return err
		}
		before += f.Bytes
	}
	return nil
}

func isMLmodel(f File) int {
	if f.Path == "MLmodel" {
		return 1
	}
	return 0
}

func (c *Client) uploadFile(ctx context.Context, artifactURI, name string, f File, progress Progress) error {
	r, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("upload %s: %w", f.Path, err)
	}
	defer r.Close()
	return c.UploadArtifact(ctx, artifactURI, f.Path, r, f.Bytes, progress)
}

// offset shifts a progress callback by the bytes of the files before.
func offset(progress Progress, before int64) Progress {
	if progress == nil {
		return nil
	}
	return func(done int64) { progress(before + done) }
}

// ListArtifacts returns all files below dir ("" for the root) below artifactURI, sorted by path. A place that holds
// nothing gives none.
func (c *Client) ListArtifacts(ctx context.Context, artifactURI, dir string) ([]File, error) {
	op := "list " + dir
	if dir != "" && !cleanRel(dir) {
		return nil, invalid(op, "path: want a clean relative path")
	}
	store, err := c.store(ctx, op, artifactURI)
	if err != nil {
		return nil, err
	}
	var all []File
	for dirs := []string{dir}; len(dirs) > 0; {
		next := dirs[0]
		files, more, err := store.list(ctx, next)
		if err != nil {
			return nil, err
		}
		all, dirs = append(all, files...), append(dirs[1:], more...)
	}
	slices.SortFunc(all, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return all, nil
}

// DownloadArtifact copies the file rel below artifactURI to w and returns its length. A transfer that ends early is
// ErrUnavailable; w then holds a part of it.
func (c *Client) DownloadArtifact(ctx context.Context, artifactURI, rel string, w io.Writer, progress Progress) (int64, error) {
	op := "download " + rel
	if !cleanRel(rel) {
		return 0, invalid(op, "path: want a clean relative path")
	}
	store, err := c.store(ctx, op, artifactURI)
	if err != nil {
		return 0, err
	}
	ctx, alive, cancel := c.watch(ctx)
	defer cancel()
	body, size, err := store.open(ctx, rel)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	m := &meter{r: body, alive: alive, progress: progress}
	n, err := io.Copy(w, m)
	switch {
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errNoAnswer):
		return n, fmt.Errorf("mlflow %s: %w", op, ctx.Err())
	case m.err != nil:
		return n, &Error{Op: op, Err: netError(m.err)}
	case err != nil:
		return n, fmt.Errorf("mlflow %s: write: %w", op, err)
	case size >= 0 && n != size:
		return n, &Error{Op: op, Err: fmt.Errorf("%w: %d of %d bytes", io.ErrUnexpectedEOF, n, size)}
	}
	return n, nil
}

// DownloadDir copies all files below artifactURI into the folder dir, which must exist. A file that comes short is
// tried again.
func (c *Client) DownloadDir(ctx context.Context, artifactURI, dir string, progress Progress) ([]File, error) {
	files, err := c.ListArtifacts(ctx, artifactURI, "")
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir) // a listed path cannot leave it
	if err != nil {
		return nil, fmt.Errorf("mlflow download: %w", err)
	}
	defer root.Close()
	var before int64
	for i, f := range files {
		err := c.retry(ctx, func(ctx context.Context) error {
			var err error
			files[i].Bytes, err = c.downloadFile(ctx, root, artifactURI, f.Path, offset(progress, before))
			return err
		})
		if err != nil {
			return nil, err
		}
		before += files[i].Bytes
	}
	return files, nil
}

func (c *Client) downloadFile(ctx context.Context, root *os.Root, artifactURI, rel string, progress Progress) (int64, error) {
	if err := root.MkdirAll(filepath.FromSlash(path.Dir(rel)), 0o755); err != nil {
		return 0, fmt.Errorf("mlflow download %s: %w", rel, err)
	}
	w, err := root.Create(filepath.FromSlash(rel))
	if err != nil {
		return 0, fmt.Errorf("mlflow download %s: %w", rel, err)
	}
	n, err := c.DownloadArtifact(ctx, artifactURI, rel, w, progress)
	if cerr := w.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("mlflow download %s: %w", rel, cerr)
	}
	return n, err
}

// cleanRel reports whether p is a non-empty relative path without dot segments, and without what the server refuses
// (#) or decodes a second time (%).
func cleanRel(p string) bool { return fs.ValidPath(p) && p != "." && !strings.ContainsAny(p, `\#%`) }

// owner finds the model or run in an artifact URI: MLflow lays files out as
// <location>/models/<model id>/artifacts and <location>/<run id>/artifacts.
var owner = regexp.MustCompile(`/(?:models/(m-[0-9a-f]+)|([0-9a-f]{32}))/artifacts(?:/(.*))?$`)

// store picks the way to the files below an artifact URI.
func (c *Client) store(ctx context.Context, op, artifactURI string) (artifactStore, error) {
	u, err := url.Parse(artifactURI)
	if err != nil {
		return nil, invalid(op, "artifact URI is not a URI")
	}
	root := strings.Trim(u.Path, "/")
	switch u.Scheme {
	case "mlflow-artifacts":
		base := *c.base
		if u.Host != "" && u.Host != base.Host {
			base = url.URL{Scheme: c.base.Scheme, Host: u.Host}
		}
		return &proxied{c: c, base: strings.TrimRight(base.String(), "/") + "/api/2.0/mlflow-artifacts/", root: root}, nil
	case "s3":
		client, err := c.s3.get(ctx, c.cfg)
		if err == nil {
			return &s3Store{c: c, s3: client, bucket: u.Host, root: root}, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("mlflow %s: %w", op, ctx.Err())
		}
		info, infoErr := c.serverInfo(ctx)
		m := owner.FindStringSubmatch(u.Path)
		if infoErr != nil || m == nil || !info.PresignedUpload {
			return nil, invalid(op, "%s needs S3 credentials (%s), and the server signs no URLs for it", safeURL(u), scrub(err.Error()))
		}
		return &signed{c: c, modelID: m[1], runID: m[2], root: m[3]}, infoErr
	}
	return nil, invalid(op, "artifact URI scheme %q is not supported, want mlflow-artifacts or s3: start the server with --serve-artifacts and without --default-artifact-root, "+
		"or with one of s3://…, and use an experiment that is made after that", u.Scheme)
}
