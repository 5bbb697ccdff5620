package s3

import (
	"errors"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// metadataTimeout bounds each request to the instance metadata service: elsewhere than in a cloud its address swallows
// packets.
const metadataTimeout = 3 * time.Second

// errNoCredentials: nothing in the chain had any. An anonymous request would only come back as "access denied".
var errNoCredentials = errors.New("no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, " +
	"or write them to ~/.aws/credentials (AWS_PROFILE chooses the profile)")

// credentials come from the environment, the shared file, and last, on AWS or when asked for, the instance.
func (c Config) credentials() *credentials.Credentials {
	chain := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	if c.aws() || c.Instance {
		chain = append(chain, &credentials.IAM{Client: &http.Client{Timeout: metadataTimeout}})
	}
	return credentials.New(&required{credentials.Chain{Providers: chain}})
}

// required is a chain that does not fall back to anonymous requests.
type required struct{ credentials.Chain }

func (r *required) Retrieve() (credentials.Value, error) { return require(r.Chain.Retrieve()) }

func (r *required) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	return require(r.Chain.RetrieveWithCredContext(cc))
}

func require(v credentials.Value, err error) (credentials.Value, error) {
	if err == nil && v.SignerType == credentials.SignatureAnonymous {
		err = errNoCredentials
	}
	return v, err
}
