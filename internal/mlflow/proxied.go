package mlflow

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
)

// Sizes of multipart uploads through the server, as the Python client has them.
const (
	multipartMin = 500 << 20 // bytes; smaller files go in one PUT unless the server refuses that
	partSize     = 10 << 20
	maxParts     = 10000
)

// proxied reaches mlflow-artifacts: URIs through the tracking server.
type proxied struct {
	c    *Client
	base string // …/api/2.0/mlflow-artifacts/
	root string // e.g. 2/models/m-…/artifacts
}

func (p *proxied) address(route, rel string) string {
	return p.base + route + "/" + escapePath(path.Join(p.root, rel))
}

func (p *proxied) upload(ctx context.Context, rel string, body io.ReadSeeker, size int64, progress Progress) error {
	info, err := p.c.serverInfo(ctx)
	if err != nil {
		return err
	}
	if info.PresignedOnly || (info.MultipartUploads && size >= p.c.multipartFrom) {
		return p.multipart(ctx, rel, body, size, progress)
	}
	_, err = p.c.put(ctx, "upload "+rel, p.address("artifacts", rel), nil, body, size, progress, p.c.do)
	return err
}

func (p *proxied) open(ctx context.Context, rel string) (io.ReadCloser, int64, error) {
	return p.c.fetch(ctx, "download "+rel, p.address("artifacts", rel))
}

// list reads one directory; the server gives names, and nothing for a place that does not exist.
func (p *proxied) list(ctx context.Context, dir string) ([]File, []string, error) {
	var reply listing
	q := url.Values{"path": {path.Join(p.root, dir)}}
	err := p.c.retry(ctx, func(ctx context.Context) error {
		return p.c.onceAt(ctx, "list "+dir, http.MethodGet, p.base+"artifacts?"+q.Encode(), nil, &reply)
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil, nil
	}
	return reply.split(func(name string) string { return path.Join(dir, name) }, err)
}

// listing is the server's list of a directory.
type listing struct {
	Files []struct {
		Path  string `json:"path"`
		IsDir bool   `json:"is_dir"`
		Bytes int64  `json:"file_size"`
	} `json:"files"`
}

// split separates files from directories and refuses names that leave the directory.
func (l listing) split(full func(string) string, err error) (files []File, dirs []string, _ error) {
	if err != nil {
		return nil, nil, err
	}
	for _, f := range l.Files {
		name := full(f.Path)
		switch {
		case !cleanRel(f.Path) || !cleanRel(name):
			return nil, nil, invalid("list", "the server names a file %q", f.Path)
		case f.IsDir:
			dirs = append(dirs, name)
		default:
			files = append(files, File{name, f.Bytes})
		}
	}
	return files, dirs, nil
}

// upload parts: the server signs one URL a part at the object store behind it.
type (
	partURL struct {
		URL     string            `json:"url"`
		Number  int               `json:"part_number"`
		Headers map[string]string `json:"headers"`
	}
	partDone struct {
		Number int    `json:"part_number"`
		ETag   string `json:"etag"`
		URL    string `json:"url"`
	}
)

// multipart uploads in parts that go to the store directly. What fails is aborted, so that no parts stay behind.
func (p *proxied) multipart(ctx context.Context, rel string, body io.ReadSeeker, size int64, progress Progress) error {
	op := "upload " + rel
	part := max(partSize, (size+maxParts-1)/maxParts)
	count := max(1, (size+part-1)/part)
	var created struct {
		UploadID    string    `json:"upload_id"`
		Credentials []partURL `json:"credentials"`
	}
	route := func(verb string) string { return p.address("mpu/"+verb, path.Dir(rel)) }
	name := path.Base(rel)
	err := p.c.retry(ctx, func(ctx context.Context) error {
		in := map[string]any{"path": name, "num_parts": count}
		return p.c.onceAt(ctx, op+" (create)", http.MethodPost, route("create"), in, &created)
	})
	if err != nil {
		return err
	}
	parts, err := p.parts(ctx, op, created.Credentials, body, size, part, progress)
	if err == nil && len(parts) != int(count) {
		err = invalid(op, "the server signed %d parts, want %d", len(parts), count)
	}
	if err == nil {
		err = p.c.retry(ctx, func(ctx context.Context) error {
			in := map[string]any{"path": name, "upload_id": created.UploadID, "parts": parts}
			return p.c.onceAt(ctx, op+" (complete)", http.MethodPost, route("complete"), in, nil)
		})
	}
	if err != nil {
		// On its own context: the caller's may be why it failed. Its own failure adds nothing to err.
		in := map[string]any{"path": name, "upload_id": created.UploadID}
		_ = p.c.onceAt(context.WithoutCancel(ctx), op+" (abort)", http.MethodPost, route("abort"), in, nil)
	}
	return err
}

func (p *proxied) parts(ctx context.Context, op string, urls []partURL, body io.ReadSeeker, size, part int64, progress Progress) ([]partDone, error) {
	var done []partDone
	var before int64
	for _, u := range urls {
		n := min(part, size-before)
		header := http.Header{}
		for k, v := range u.Headers {
			header.Set(k, v)
		}
		reply, err := p.c.put(ctx, op, u.URL, header, body, n, offset(progress, before), p.c.toCloud)
		if err != nil {
			return nil, err
		}
		done = append(done, partDone{u.Number, reply.Get("ETag"), u.URL})
		before += n
	}
	return done, nil
}

// toCloud sends to a presigned URL: the signature is in it, and MLflow's credentials must not go there.
func (c *Client) toCloud(op string, req *http.Request) (*http.Response, error) {
	return c.roundTrip(c.cloud, op, req)
}

// signed reaches s3:// URIs without S3 credentials: uploads by URLs that the tracking server signs, reads through the
// routes that serve its pages.
type signed struct {
	c       *Client
	modelID string // one of the two
	runID   string
	root    string // below the artifact root of model or run
}

func (s *signed) upload(ctx context.Context, rel string, body io.ReadSeeker, size int64, progress Progress) error {
	in := map[string]any{"path": path.Join(s.root, rel), "expiration": 3600}
	if s.modelID != "" {
		in["model_id"] = s.modelID
	} else {
		in["run_id"] = s.runID
	}
	var reply struct {
		URL     string            `json:"presigned_url"`
		Headers map[string]string `json:"headers"`
	}
	if err := s.c.send(ctx, http.MethodPost, "artifacts/presigned-upload-url", in, &reply); err != nil {
		return err
	}
	header := http.Header{}
	for k, v := range reply.Headers { // signed: exactly these
		header.Set(k, v)
	}
	_, err := s.c.put(ctx, "upload "+rel, reply.URL, header, body, size, progress, s.c.toCloud)
	return err
}

func (s *signed) open(ctx context.Context, rel string) (io.ReadCloser, int64, error) {
	full := path.Join(s.root, rel)
	if s.modelID != "" {
		route := "ajax-api/2.0/mlflow/logged-models/" + url.PathEscape(s.modelID) + "/artifacts/files"
		return s.c.fetch(ctx, "download "+rel, s.c.url(route, url.Values{"artifact_file_path": {full}}))
	}
	return s.c.fetch(ctx, "download "+rel, s.c.url("get-artifact", url.Values{"run_id": {s.runID}, "path": {full}}))
}

// list reads one directory; the server gives paths from the artifact root.
func (s *signed) list(ctx context.Context, dir string) ([]File, []string, error) {
	full := path.Join(s.root, dir)
	route, q := "artifacts/list", url.Values{"run_id": {s.runID}}
	key := "path"
	if s.modelID != "" {
		route, q, key = "logged-models/"+url.PathEscape(s.modelID)+"/artifacts/directories", url.Values{}, "artifact_directory_path"
	}
	if full != "" {
		q.Set(key, full)
	}
	var reply listing
	err := s.c.get(ctx, route, q, &reply)
	return reply.split(func(name string) string { return strings.TrimPrefix(strings.TrimPrefix(name, s.root), "/") }, err)
}
