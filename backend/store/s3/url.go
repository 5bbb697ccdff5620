package s3

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/minio/minio-go/v7"

	"glidefs-appliance/backend/store"
)

// Config is a parsed URL:
//
//	s3://bucket/prefix?endpoint=http://127.0.0.1:7070&region=us-east-1&path-style=true&credentials=instance
//
// Everything but the bucket may be left out. Without endpoint it is AWS. Credentials are never part of it.
type Config struct {
	Bucket string
	Prefix string // "" or ends in a slash
	// Endpoint is a URL without path, or "" for AWS.
	Endpoint string
	// Region is "" if the URL doesn't name it: then AWS_REGION, AWS_DEFAULT_REGION, else us-east-1.
	Region string
	// PathStyle is "", "true" or "false"; "" lets the endpoint decide (only AWS and its like want the bucket in the host).
	PathStyle string
	// Instance: ask the instance metadata service for credentials although the endpoint isn't AWS.
	Instance bool

	metadata string // URL of the instance metadata service; "" is the one of every cloud
}

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// maxPrefix leaves room for store.MaxKey in the 1,024 bytes of an S3 key.
const maxPrefix = 256

// ParseURL checks raw and takes it apart. Errors don't quote raw, which may hold a password.
func ParseURL(raw string) (Config, error) {
	c, err := parse(raw)
	if err != nil {
		return Config{}, fmt.Errorf("invalid s3 URL: %w (expected s3://bucket/prefix?endpoint=https://host&region=...)", err)
	}
	return c, nil
}

func parse(raw string) (c Config, err error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return c, errors.New("it can't be parsed")
	case u.Scheme != "s3":
		return c, errors.New("the scheme isn't s3")
	case u.User != nil:
		return c, errors.New("credentials don't belong in a URL; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.Fragment != "" || u.Opaque != "":
		return c, errors.New("it has parts that mean nothing here")
	case !bucketName.MatchString(u.Host):
		return c, fmt.Errorf("%q is no bucket name", u.Host)
	}
	c.Bucket = u.Host
	if c.Prefix, err = parsePrefix(u.Path); err != nil {
		return c, err
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return c, errors.New("what follows the question mark can't be parsed")
	}
	for name, values := range query {
		if len(values) != 1 {
			return c, fmt.Errorf("%s is given %d times", name, len(values))
		}
		if err := c.set(name, values[0]); err != nil {
			return c, err
		}
	}
	return c, nil
}

func parsePrefix(path string) (string, error) {
	prefix := strings.Trim(path, "/")
	if prefix == "" {
		return "", nil
	}
	if len(prefix) > maxPrefix {
		return "", fmt.Errorf("the prefix is longer than %d bytes", maxPrefix)
	}
	if err := store.CheckKey(prefix); err != nil {
		return "", fmt.Errorf("prefix: %w", err)
	}
	return prefix + "/", nil
}

var regionName = regexp.MustCompile(`^[a-zA-Z0-9-]{1,64}$`)

func (c *Config) set(name, value string) (err error) {
	switch name {
	case "endpoint":
		c.Endpoint, err = parseEndpoint(value)
	case "region":
		if c.Region = value; !regionName.MatchString(value) {
			err = fmt.Errorf("%q is no region", value)
		}
	case "path-style":
		if c.PathStyle = value; value != "true" && value != "false" {
			err = errors.New("path-style is true or false")
		}
	case "credentials":
		if c.Instance = value == "instance"; !c.Instance {
			err = errors.New(`the only value of credentials is "instance"; keys come from the environment or ~/.aws/credentials`)
		}
	default:
		err = fmt.Errorf("unknown parameter %q; there are endpoint, region, path-style and credentials", name)
	}
	return err
}

func parseEndpoint(value string) (string, error) {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("the endpoint must begin with http:// or https:// and name a host")
	case u.User != nil:
		return "", errors.New("credentials don't belong in the endpoint")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", errors.New("the endpoint is scheme, host and port, nothing more")
	}
	return u.Scheme + "://" + u.Host, nil
}

// String is the canonical URL: ParseURL gives the same Config back.
func (c Config) String() string {
	q := url.Values{}
	for name, value := range map[string]string{"endpoint": c.Endpoint, "region": c.Region, "path-style": c.PathStyle} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if c.Instance {
		q.Set("credentials", "instance")
	}
	u := url.URL{Scheme: "s3", Host: c.Bucket, Path: "/" + strings.TrimSuffix(c.Prefix, "/"), RawQuery: q.Encode()}
	if c.Prefix == "" {
		u.Path = ""
	}
	return u.String()
}

const awsHost = "s3.amazonaws.com"

func (c Config) host() string {
	if c.Endpoint == "" {
		return awsHost
	}
	_, host, _ := strings.Cut(c.Endpoint, "://")
	return host
}

func (c Config) secure() bool { return !strings.HasPrefix(c.Endpoint, "http://") }

func (c Config) aws() bool {
	host := c.host()
	return strings.HasSuffix(host, ".amazonaws.com") || strings.HasSuffix(host, ".amazonaws.com.cn")
}

func (c Config) region() string {
	for _, r := range []string{c.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")} {
		if r != "" {
			return r
		}
	}
	return "us-east-1"
}

func (c Config) lookup() minio.BucketLookupType {
	switch c.PathStyle {
	case "true":
		return minio.BucketLookupPath
	case "false":
		return minio.BucketLookupDNS
	}
	return minio.BucketLookupAuto
}
