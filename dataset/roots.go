package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const (
	fileScheme = "file:"
	outside    = "outside the data roots of the worker (DURATUNE_DATA_ROOTS)"

	maxDirDepth   = 8
	maxDirEntries = 10_000
)

// MaxFiles bounds the files of a source.
const MaxFiles = 100_000

// Roots are the folders below which a worker reads files that a recipe names. A worker's rights are not its callers', so
// nothing outside is ever opened, symbolic links included. The zero Roots allow nothing.
type Roots struct{ roots []root }

type root struct {
	path string // absolute, links resolved
	dir  *os.Root
}

// ParseRoots opens a list of folders, written as PATH is (DURATUNE_DATA_ROOTS). The empty list allows nothing.
func ParseRoots(list string) (Roots, error) {
	var r Roots
	for _, path := range filepath.SplitList(list) {
		if path == "" {
			continue
		}
		dir, err := openRoot(path)
		if err != nil {
			return Roots{}, errors.Join(fmt.Errorf("data root %s: %w", path, err), r.Close())
		}
		r.roots = append(r.roots, dir)
	}
	return r, nil
}

func openRoot(path string) (root, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return root{}, err
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return root{}, err
	}
	dir, err := os.OpenRoot(abs)
	return root{abs, dir}, err
}

// Close closes the folders.
func (r Roots) Close() error {
	var errs []error
	for _, root := range r.roots {
		errs = append(errs, root.dir.Close())
	}
	return errors.Join(errs...)
}

// Files returns the files that uri names: file:relative/path, in the first root that has it, or file:///absolute/path. A
// folder stands for all files below it, a * for those that match ([MatchGlob]); they come in the order of their names, and
// hidden ones ([Hidden]) are left out. The part behind file: is taken literally, without percent-decoding. What is wrong is
// a [*SourceError].
func (r Roots) Files(uri string) ([]File, error) {
	folder, pattern := SplitGlob(uri)
	if rest, ok := strings.CutPrefix(pattern, fileScheme); ok { // a pattern in the root itself
		folder, pattern = fileScheme+".", rest
	}
	root, name, info, err := r.find(folder)
	if err != nil {
		if e, ok := errors.AsType[*SourceError](err); ok {
			e.Source = uri
		}
		return nil, err
	}
	if info.IsDir() {
		return root.files(uri, strings.TrimSuffix(folder, "/"), name, pattern)
	}
	if !info.Mode().IsRegular() {
		return nil, &SourceError{uri, "not a regular file"}
	}
	return []File{{Name: uri, Open: func() (fs.File, error) { return root.open(uri, name) }}}, nil
}

// files lists the folder name, which the source calls folder.
func (r root) files(uri, folder, name, pattern string) ([]File, error) {
	var files []File
	err := fs.WalkDir(r.dir.FS(), filepath.ToSlash(name), func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return &SourceError{uri, statReason(err)}
		}
		rel, err := filepath.Rel(name, filepath.FromSlash(at))
		if err != nil {
			return &SourceError{uri, outside}
		}
		rel = filepath.ToSlash(rel)
		switch {
		case rel == ".":
			return nil
		case Hidden(rel) && entry.IsDir():
			return fs.SkipDir
		case Hidden(rel), entry.IsDir(), pattern != "" && !MatchGlob(pattern, rel):
			return nil
		case len(files) == MaxFiles:
			return &SourceError{uri, fmt.Sprintf("more than %d files", MaxFiles)}
		}
		called := folder + "/" + rel
		if folder == fileScheme+"." {
			called = fileScheme + rel
		}
		files = append(files, File{Name: called, Open: func() (fs.File, error) { return r.open(called, filepath.Join(name, filepath.FromSlash(rel))) }})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, &SourceError{uri, "there is no such file"}
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// Dir returns the path of the folder that uri names. No symbolic link in it leads out of the root.
func (r Roots) Dir(uri string) (string, error) {
	root, name, info, err := r.find(uri)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", &SourceError{uri, "not a folder"}
	}
	if err := root.check(uri, name); err != nil {
		return "", err
	}
	return filepath.Join(root.path, name), nil
}

// find resolves uri to a root and a path in it.
func (r Roots) find(uri string) (root, string, fs.FileInfo, error) {
	path, ok := strings.CutPrefix(uri, fileScheme)
	switch {
	case !ok:
		return root{}, "", nil, &SourceError{uri, "not a file: URI"}
	case path == "", strings.ContainsRune(path, 0):
		return root{}, "", nil, &SourceError{uri, "names no file"}
	case len(r.roots) == 0:
		return root{}, "", nil, &SourceError{uri, "the worker has no data roots; set DURATUNE_DATA_ROOTS"}
	case strings.HasPrefix(path, "//"):
		path = path[2:]
		if !strings.HasPrefix(path, "/") {
			return root{}, "", nil, &SourceError{uri, "file:// takes an absolute path (file:///…) and no host"}
		}
	}
	reason := outside // if no root even has room for the path
	for _, root := range r.roots {
		name := path
		if filepath.IsAbs(path) {
			rel, err := filepath.Rel(root.path, path)
			if err != nil {
				continue
			}
			name = rel
		}
		if name = filepath.Clean(name); !filepath.IsLocal(name) {
			continue
		}
		info, err := root.dir.Stat(name)
		if err == nil {
			return root, name, info, nil
		}
		if reason = statReason(err); reason != notFound {
			break
		}
	}
	return root{}, "", nil, &SourceError{uri, reason}
}

const notFound = "not found below the data roots of the worker (DURATUNE_DATA_ROOTS)"

// statReason says why a root does not give a file, without the path of the root.
func statReason(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return notFound
	case errors.Is(err, fs.ErrPermission):
		return "the worker may not read it"
	case strings.Contains(err.Error(), "escapes"): // os.Root's error has no sentinel
		return outside
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err.Error()
	}
	return "cannot be read"
}

// open opens a regular file. A pipe would block, hence O_NONBLOCK; it is looked at again once it is open.
func (r root) open(uri, name string) (fs.File, error) {
	f, err := r.dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, &SourceError{uri, statReason(err)}
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(&SourceError{uri, "not a regular file"}, f.Close())
	}
	return f, nil
}

// check refuses a folder with an entry that leads out of the root or is no file or folder.
func (r root) check(uri, name string) error {
	entries := 0
	return fs.WalkDir(r.dir.FS(), filepath.ToSlash(name), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return &SourceError{uri, statReason(err)}
		}
		rel, err := filepath.Rel(name, path)
		if err != nil {
			return &SourceError{uri, outside}
		}
		if entries++; entries > maxDirEntries || strings.Count(rel, string(filepath.Separator)) > maxDirDepth {
			return &SourceError{uri, "too many files or folders in it"}
		}
		info, err := r.dir.Stat(path)
		if err != nil {
			return &SourceError{uri, quote(rel) + ": " + statReason(err)}
		}
		if !info.Mode().IsRegular() && !info.IsDir() {
			return &SourceError{uri, quote(rel) + " is neither a file nor a folder"}
		}
		return nil
	})
}

// LocalFiles names files by their paths, for callers that trust them.
func LocalFiles(paths ...string) []File {
	files := make([]File, len(paths))
	for i, path := range paths {
		files[i] = File{Name: path, Open: func() (fs.File, error) { return os.Open(path) }}
	}
	return files
}
