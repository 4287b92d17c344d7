package mlflow

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Defaults of [Config].
const (
	defaultTimeout = 120 * time.Second // MLFLOW_HTTP_REQUEST_TIMEOUT of the Python client
	maxRetries     = 3                 // with waits of about 0.1, 0.4 and 1.2 s
)

// Config is how to reach the server, by the names of the Python client's environment.
type Config struct {
	TrackingURI string // MLFLOW_TRACKING_URI: http(s)://host[:port][/prefix], without user info
	Username    string // MLFLOW_TRACKING_USERNAME, the credentials file, or user info of the URI; wins over Token
	Password    Secret // MLFLOW_TRACKING_PASSWORD, likewise
	Token       Secret // MLFLOW_TRACKING_TOKEN, sent as a bearer token

	InsecureTLS    bool   // MLFLOW_TRACKING_INSECURE_TLS: no certificate check
	CAFile         string // MLFLOW_TRACKING_SERVER_CERT_PATH: PEM bundle
	ClientCertFile string // MLFLOW_TRACKING_CLIENT_CERT_PATH: PEM with certificate and key

	Workspace  string        // MLFLOW_WORKSPACE, sent as X-MLFLOW-WORKSPACE
	Timeout    time.Duration // MLFLOW_HTTP_REQUEST_TIMEOUT (s): of a call; of a transfer, the longest standstill
	MaxRetries int           // MLFLOW_HTTP_REQUEST_MAX_RETRIES, at most 3: longer waits are the caller's

	S3 S3Config
}

// S3Config is how artifacts below s3:// are reached directly. Region and credentials come from the AWS SDK's own chain.
type S3Config struct {
	Endpoint      string            // MLFLOW_S3_ENDPOINT_URL; switches to path-style addresses
	InsecureTLS   bool              // MLFLOW_S3_IGNORE_TLS
	PathStyle     bool              // MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE=path
	ExpectedOwner string            // MLFLOW_S3_EXPECTED_BUCKET_OWNER
	UploadArgs    map[string]string // MLFLOW_S3_UPLOAD_EXTRA_ARGS: ACL, ServerSideEncryption, SSEKMSKeyId, StorageClass
}

// ConfigFromEnv reads the Python client's environment and ~/.mlflow/credentials. Settings that this client cannot
// honour are refused by name. All problems are returned at once.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	e := env{get: getenv}
	c := Config{
		TrackingURI:    getenv("MLFLOW_TRACKING_URI"),
		Username:       getenv("MLFLOW_TRACKING_USERNAME"),
		Password:       NewSecret(getenv("MLFLOW_TRACKING_PASSWORD")),
		Token:          NewSecret(getenv("MLFLOW_TRACKING_TOKEN")),
		InsecureTLS:    e.bool("MLFLOW_TRACKING_INSECURE_TLS"),
		CAFile:         getenv("MLFLOW_TRACKING_SERVER_CERT_PATH"),
		ClientCertFile: getenv("MLFLOW_TRACKING_CLIENT_CERT_PATH"),
		Workspace:      getenv("MLFLOW_WORKSPACE"),
		Timeout:        time.Duration(e.int("MLFLOW_HTTP_REQUEST_TIMEOUT", int(defaultTimeout/time.Second))) * time.Second,
		MaxRetries:     min(e.int("MLFLOW_HTTP_REQUEST_MAX_RETRIES", maxRetries), maxRetries),
		S3: S3Config{
			Endpoint:      getenv("MLFLOW_S3_ENDPOINT_URL"),
			InsecureTLS:   e.bool("MLFLOW_S3_IGNORE_TLS"),
			ExpectedOwner: getenv("MLFLOW_S3_EXPECTED_BUCKET_OWNER"),
			UploadArgs:    e.uploadArgs("MLFLOW_S3_UPLOAD_EXTRA_ARGS"),
		},
	}
	c.S3.PathStyle = c.S3.Endpoint != ""
	switch style := getenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE"); style {
	case "", "auto":
	case "path":
		c.S3.PathStyle = true
	case "virtual":
		c.S3.PathStyle = false
	default:
		e.add("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE: got %q, want auto, path or virtual", style)
	}
	if e.bool("MLFLOW_TRACKING_AWS_SIGV4") {
		e.add("MLFLOW_TRACKING_AWS_SIGV4: SigV4 is not supported; use basic authentication or a token")
	}
	if plugin := getenv("MLFLOW_TRACKING_AUTH"); plugin != "" {
		e.add("MLFLOW_TRACKING_AUTH: plugin %q is not supported; use basic authentication or a token", plugin)
	}
	if c.InsecureTLS && c.CAFile != "" {
		e.add("MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH: set one of them")
	}
	e.errs = append(e.errs, c.takeUserInfo(), c.credentialsFile(getenv("HOME")))
	return c, errors.Join(e.errs...)
}

// takeUserInfo moves user:password@ out of the tracking URI, so that the URI may be printed.
func (c *Config) takeUserInfo() error {
	if c.TrackingURI == "" {
		return errors.New("MLFLOW_TRACKING_URI: not set, want http(s)://host[:port]")
	}
	u, err := url.Parse(c.TrackingURI)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// The value itself stays out of the message: it may hold a password.
		c.TrackingURI = ""
		return errors.New("MLFLOW_TRACKING_URI: want http(s)://host[:port][/prefix]; other stores are not supported")
	}
	if u.User != nil {
		if c.Username == "" {
			c.Username = u.User.Username()
			p, _ := u.User.Password()
			c.Password = NewSecret(p)
		}
		u.User = nil
	}
	u.RawQuery, u.Fragment = "", ""
	c.TrackingURI = strings.TrimRight(u.String(), "/")
	return nil
}

// credentialsFile fills what the environment left out from ~/.mlflow/credentials, section [mlflow].
func (c *Config) credentialsFile(home string) error {
	if home == "" || (c.Username != "" && !c.Password.IsZero()) {
		return nil
	}
	path := filepath.Join(home, ".mlflow", "credentials")
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("credentials file: %w", err)
	}
	defer f.Close()
	section := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[mlflow]" {
			continue
		}
		switch value = strings.TrimSpace(value); strings.ToLower(strings.TrimSpace(key)) {
		case "mlflow_tracking_username":
			if c.Username == "" {
				c.Username = value
			}
		case "mlflow_tracking_password":
			if c.Password.IsZero() {
				c.Password = NewSecret(value)
			}
		}
	}
	return nil
}

// env reads typed variables and collects what is wrong with them.
type env struct {
	get  func(string) string
	errs []error
}

func (e *env) add(format string, args ...any) { e.errs = append(e.errs, fmt.Errorf(format, args...)) }

// bool accepts what the Python client accepts.
func (e *env) bool(name string) bool {
	switch v := strings.ToLower(e.get(name)); v {
	case "", "0", "false":
		return false
	case "1", "true":
		return true
	default:
		e.add("%s: got %q, want true, false, 1 or 0", name, v)
		return false
	}
}

func (e *env) int(name string, fallback int) int {
	v := e.get(name)
	if v == "" {
		return fallback
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		e.add("%s: got %q, want a whole number of at least 0", name, v)
		return fallback
	}
	return n
}

func (e *env) uploadArgs(name string) map[string]string {
	v := e.get(name)
	if v == "" {
		return nil
	}
	var args map[string]string
	if err := json.Unmarshal([]byte(v), &args); err != nil {
		e.add("%s: want a JSON object of strings", name)
		return nil
	}
	known := map[string]bool{"ACL": true, "ServerSideEncryption": true, "SSEKMSKeyId": true, "StorageClass": true}
	var unknown []string
	for k := range args {
		if !known[k] {
			unknown = append(unknown, k)
		}
	}
	if sort.Strings(unknown); len(unknown) > 0 {
		e.add("%s: %s not supported, want ACL, ServerSideEncryption, SSEKMSKeyId or StorageClass", name, strings.Join(unknown, ", "))
	}
	return args
}
