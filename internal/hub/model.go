package hub

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// modelFiles are the files of a model folder that are read, where they exist. Everything else in a repository (code,
// pickles, other frameworks' weights) stays there.
var modelFiles = []string{
	"config.json",
	"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"vocab.txt", "vocab.json", "merges.txt",
	"LICENSE", "LICENSE.txt", "README.md",
}

const (
	weightsFile  = "model.safetensors"
	weightsIndex = "model.safetensors.index.json"
)

var shardRE = regexp.MustCompile(`^model-\d{5}-of-\d{5}\.safetensors$`)

// Model brings a model into the cache and returns its folder (config.json, safetensors weights, tokenizer files) and
// the commit it is of. revision counts where uri has none; a commit always counts. The folder is shared and must not be
// changed. Errors are of type [*Error], or from the file system.
func (c *Client) Model(ctx context.Context, uri, revision string, progress ProgressFunc) (dir, commit string, err error) {
	snap, _, err := c.open(ctx, TypeModel, uri, revision)
	if err != nil {
		return "", "", err
	}
	files, err := snap.modelFiles()
	if err != nil {
		return "", "", err
	}
	dir = filepath.Join(c.repoDir(TypeModel, snap.Name), snap.Commit)
	return dir, snap.Commit, c.Download(ctx, snap, files, dir, progress)
}

// open resolves what uri and revision mean, as a repository of type typ.
func (c *Client) open(ctx context.Context, typ RepoType, uri, revision string) (*Snapshot, URI, error) {
	u, err := ParseURI(uri)
	if err != nil {
		return nil, u, err
	}
	if u.Type != "" && u.Type != typ {
		return nil, u, &Error{Op: "resolve", Repo: u.Name, Kind: ErrInvalid, Detail: fmt.Sprintf("%s names a %s, a %s is wanted", scrub(uri), u.Type, typ)}
	}
	if typ == TypeModel && (u.Config != "" || u.Split != "") {
		return nil, u, &Error{Op: "resolve", Repo: u.Name, Kind: ErrInvalid, Detail: "config and split are for data sets"}
	}
	if u.Revision, err = u.pick(revision); err != nil {
		return nil, u, err
	}
	snap, err := c.Resolve(ctx, typ, u.Name, u.Revision)
	return snap, u, err
}

// modelFiles picks the files to fetch: the weights whole or in shards, and what modelFiles lists.
func (s *Snapshot) modelFiles() ([]File, error) {
	_, whole := s.Find(weightsFile)
	_, index := s.Find(weightsIndex)
	var files []File
	pickled := ""
	for _, f := range s.Files {
		switch {
		case slices.Contains(modelFiles, f.Path),
			whole && f.Path == weightsFile,
			!whole && index && (f.Path == weightsIndex || shardRE.MatchString(f.Path)):
			files = append(files, f)
		case strings.HasPrefix(f.Path, "pytorch_model") && strings.HasSuffix(f.Path, ".bin"):
			pickled = f.Path
		}
	}
	if whole || index {
		return files, nil
	}
	e := &Error{Op: "resolve model", Repo: s.Name, Revision: s.Commit, Kind: ErrUnsupported, Detail: "the repository has no " + weightsFile}
	if pickled != "" {
		e.File = pickled
		e.Detail = fmt.Sprintf("the weights are pickled, and a pickle can run code, so it is never read; convert them once, where you trust them: "+
			`python -c "from transformers import AutoModel as M; M.from_pretrained('%s').save_pretrained('DIR')", and use DIR`, s.Name)
	}
	return nil, e
}
