package activities

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/sync/errgroup"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/recipe"
)

// Buckets are the S3 buckets that a recipe's sources may lie in. A worker's credentials are not its callers', so no other
// bucket is ever asked. The zero Buckets allow none.
type Buckets struct {
	patterns []string // of path.Match
	open     func(ctx context.Context, bucket string) (artifact.Source, error)
}

// BucketsFromEnv reads DURATUNE_SOURCE_BUCKETS, patterns as path.Match takes them, between commas or spaces. Without any,
// the bucket of DURATUNE_STORE alone is allowed.
func BucketsFromEnv(getenv func(string) string) (Buckets, error) {
	const name = "DURATUNE_SOURCE_BUCKETS"
	config, err := artifact.ConfigFromEnv(getenv)
	if err != nil {
		return Buckets{}, err
	}
	b := Buckets{open: func(ctx context.Context, bucket string) (artifact.Source, error) {
		return openBucket(ctx, bucket, config)
	}}
	for _, p := range strings.FieldsFunc(getenv(name), func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		if _, err := path.Match(p, ""); err != nil {
			return Buckets{}, fmt.Errorf("%s: %q is not a pattern: %w", name, p, err)
		}
		b.patterns = append(b.patterns, p)
	}
	if store, err := url.Parse(getenv("DURATUNE_STORE")); len(b.patterns) == 0 && err == nil && store.Scheme == "s3" {
		b.patterns = []string{store.Host}
	}
	return b, nil
}

// openBucket opens a bucket with the worker's own AWS environment.
func openBucket(ctx context.Context, bucket string, config artifact.Config) (artifact.Source, error) {
	store, err := artifact.Open(ctx, "s3://"+bucket, config)
	if err != nil {
		return nil, err
	}
	source, ok := store.(artifact.Source)
	if !ok {
		return nil, fmt.Errorf("s3://%s: a %T cannot be read as a source", bucket, store)
	}
	return source, nil
}

// place is what an s3:// URI names: one object, or all below a prefix.
type place struct {
	artifact.Source
	bucket, key string          // key ends with a slash, or is empty, if it is a prefix
	objects     []artifact.Info // in key order
}

// find lists what uri names: an object, all below a prefix that ends with a slash, or those that match a pattern with a *
// ([dataset.MatchGlob]). As other readers of data folders do, it leaves out files and folders whose names begin with a dot
// or an underscore.
func (b Buckets) find(ctx context.Context, uri string) (place, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "s3" || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return place{}, &dataset.SourceError{Source: uri, Reason: "not of the form s3://bucket/key"}
	}
	key, pattern := dataset.SplitGlob(strings.TrimPrefix(u.Path, "/"))
	p := place{bucket: u.Host, key: key}
	if !slices.ContainsFunc(b.patterns, func(pattern string) bool { ok, _ := path.Match(pattern, p.bucket); return ok }) {
		return place{}, &dataset.SourceError{Source: uri, Reason: fmt.Sprintf("bucket %s is not one that the worker may read (DURATUNE_SOURCE_BUCKETS)", p.bucket)}
	}
	if p.Source, err = b.open(ctx, p.bucket); err != nil {
		return place{}, err
	}
	for object, err := range p.List(ctx, p.key) {
		switch {
		case err != nil:
			return place{}, err
		case pattern == "" && object.Key != p.key && !strings.HasSuffix(p.key, "/"):
			return place{}, &dataset.SourceError{Source: uri, Reason: "a prefix, not an object; a slash at its end means all files below it"}
		case dataset.Hidden(strings.TrimPrefix(object.Key, p.key)) && object.Key != p.key, pattern != "" && !dataset.MatchGlob(pattern, strings.TrimPrefix(object.Key, p.key)):
			continue
		case len(p.objects) == dataset.MaxFiles:
			return place{}, &dataset.SourceError{Source: uri, Reason: fmt.Sprintf("more than %d files", dataset.MaxFiles)}
		}
		p.objects = append(p.objects, object)
	}
	if len(p.objects) == 0 {
		return place{}, &dataset.SourceError{Source: uri, Reason: "there is no such object"}
	}
	return p, nil
}

// files downloads the objects that uri names into the new folder dir, and names each by its own URI.
func (b Buckets) files(ctx context.Context, uri, dir string) ([]dataset.File, error) {
	p, err := b.find(ctx, uri)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	files := make([]dataset.File, len(p.objects))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(downloads)
	for i, object := range p.objects {
		local := filepath.Join(dir, fmt.Sprintf("%06d", i))
		files[i] = dataset.LocalFiles(local)[0]
		files[i].Name = "s3://" + p.bucket + "/" + object.Key
		group.Go(func() error { return p.download(ctx, object, local) })
	}
	return files, group.Wait()
}

// downloads is how many objects are on their way at a time.
const downloads = 8

// model downloads the files of the model folder that uri names into the new folder dir.
func (b Buckets) model(ctx context.Context, uri, dir string) error {
	p, err := b.find(ctx, strings.TrimSuffix(uri, "/")+"/")
	if err != nil {
		return err
	}
	objects := map[string]artifact.Info{}
	for _, object := range p.objects {
		objects[strings.TrimPrefix(object.Key, p.key)] = object
	}
	return gather(objects, uri, dir, func(object artifact.Info, local string) error { return p.download(ctx, object, local) })
}

// download writes an object to the new file local.
func (p place) download(ctx context.Context, object artifact.Info, local string) error {
	r, err := p.Read(ctx, object.Key)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(local)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(f, &arrivals{ctx: ctx, file: path.Base(object.Key), total: object.Bytes}), r)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if n != object.Bytes {
		return fmt.Errorf("s3://%s/%s: got %d bytes, was listed with %d: %w", p.bucket, object.Key, n, object.Bytes, artifact.ErrCorrupt)
	}
	return nil
}

// arrivals beats as the bytes of a download are written to it.
type arrivals struct {
	ctx         context.Context
	file        string
	done, total int64
}

// Write implements io.Writer.
func (a *arrivals) Write(p []byte) (int, error) {
	a.done += int64(len(p))
	beat(a.ctx, Heartbeat{Phase: "download " + a.file, Percent: 100 * float64(a.done) / float64(max(1, a.total, a.done))})
	return len(p), nil
}

// loggedModel downloads a model that mlflow.transformers logged, in Python or here, as a model folder into the new folder
// dir. It returns the id of the logged model: an alias may move.
func (c *CPU) loggedModel(ctx context.Context, uri, dir string) (id string, err error) {
	ref, err := c.Tracking.ResolveModelURI(ctx, uri)
	if err != nil {
		return "", err
	}
	listed, err := c.Tracking.ListArtifacts(ctx, ref.ArtifactURI, "")
	if err != nil {
		return "", err
	}
	files, whole := map[string]artifact.Info{}, false
	for _, f := range listed {
		whole = whole || f.Path == "MLmodel" // which is uploaded last
		folder, name := path.Split(f.Path)
		switch ofTokenizer := slices.Contains(tokenizerFiles, name); {
		case folder == "model/" && !ofTokenizer, folder == "components/tokenizer/" && ofTokenizer:
			files[name] = artifact.Info{Key: f.Path, Bytes: f.Bytes}
		}
	}
	if !whole || len(files) == 0 {
		return "", &dataset.SourceError{Source: uri, Reason: "not a model of mlflow.transformers, or not whole: it must have the files MLmodel, model/* and components/tokenizer/*"}
	}
	return ref.ModelID, gather(files, uri, dir, func(file artifact.Info, local string) error {
		f, err := os.Create(local)
		if err != nil {
			return err
		}
		a := &arrivals{ctx: ctx, file: path.Base(file.Key), total: file.Bytes}
		_, err = c.Tracking.DownloadArtifact(ctx, ref.ArtifactURI, file.Key, io.MultiWriter(f, a), nil)
		return errors.Join(err, f.Close())
	})
}

// gather makes a model folder: it downloads what a model needs of the given files, by their names in the folder.
func gather(files map[string]artifact.Info, source, dir string, download func(file artifact.Info, local string) error) error {
	var names []string
	for name := range files {
		names = append(names, name)
	}
	picked, err := pickModel(source, names)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for _, name := range picked {
		if err := download(files[name], filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// locateModel gives the local folder of a base model, and what its revision or alias stands for. Of a source that is not
// a folder already, the files are downloaded: from a hub into its cache, else into the new folder temp.
func (c *CPU) locateModel(ctx context.Context, m recipe.Model, temp string) (dir, commit string, err error) {
	switch scheme, _, _ := strings.Cut(m.Base, ":"); scheme {
	case "hf":
		dir, commit, err = c.Hub.Model(ctx, m.Base, m.Revision, beatDownload(ctx))
	case "s3":
		dir, err = temp, c.Buckets.model(ctx, m.Base, temp)
	case "models":
		dir = temp
		commit, err = c.loggedModel(ctx, m.Base, temp)
	case "file":
		dir, err = c.Roots.Dir(m.Base)
	default:
		err = &modelError{m.Base, "unknown scheme, want hf://, s3://, models:/ or file:"}
	}
	if bad, ok := errors.AsType[*dataset.SourceError](refused(m.Base, err)); ok {
		err = &modelError{m.Base, bad.Reason}
	}
	return dir, commit, err
}

// locateData brings a source to local disk. Its files are named by their URIs, since errors about rows repeat the names. S3's are downloaded into the new folder temp.
func (c *CPU) locateData(ctx context.Context, d recipe.Data, temp string) (found located, err error) {
	switch scheme, _, _ := strings.Cut(d.Source, ":"); scheme {
	case "hf":
		found, err = c.hubData(ctx, d)
	case "s3":
		found.files, err = c.Buckets.files(ctx, d.Source, temp)
	case "file":
		found.files, err = c.Roots.Files(d.Source)
	default:
		err = &dataset.SourceError{Source: d.Source, Reason: "unknown scheme, want hf://, s3:// or file:"}
	}
	return found, refused(d.Source, err)
}

// located is a source on local disk.
type located struct {
	files   []dataset.File
	commit  string   // if it is on a hub
	classes []string // that the data set states; nil: none
}

// hubData downloads a split of a data set on a hub. Integer labels index the class names that the data set states, so the
// recipe must state the same, or none.
func (c *CPU) hubData(ctx context.Context, d recipe.Data) (located, error) {
	paths, classes, commit, err := c.Hub.Dataset(ctx, d.Source, hub.DefaultRevision, d.Label, beatDownload(ctx))
	if err != nil {
		return located{}, err
	}
	if classes != nil && len(d.Labels) > 0 && !slices.Equal(classes, d.Labels) {
		return located{}, &dataset.SourceError{Source: d.Source, Reason: fmt.Sprintf("its column %q has the classes %q, in this order, but the recipe's data.labels are %q", d.Label, classes, d.Labels)}
	}
	files := dataset.LocalFiles(paths...)
	repo, _, _ := strings.Cut(d.Source, "?")
	for i := range files {
		if _, file, ok := strings.Cut(filepath.ToSlash(files[i].Name), "/"+commit+"/"); ok {
			files[i].Name = repo + "/" + file
		}
	}
	return located{files, commit, classes}, nil
}

func beatDownload(ctx context.Context) hub.ProgressFunc {
	return func(p hub.Progress) { beat(ctx, Heartbeat{Phase: "download " + p.File, Percent: p.Percent()}) }
}

// refused makes a [*dataset.SourceError] of what a server said about a source, unless another attempt may fare better.
// The kinds of the store's and the tracking server's errors are those of the run's own objects, which these are not.
func refused(uri string, err error) error {
	if _, ours := errors.AsType[*modelError](err); err == nil || ours || retryable(err) {
		return err
	}
	if _, ours := errors.AsType[*dataset.SourceError](err); ours {
		return err
	}
	return &dataset.SourceError{Source: uri, Reason: err.Error()}
}
