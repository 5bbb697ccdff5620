package appliance

import (
	"errors"
	"fmt"
	"strings"

	"glidefs-appliance/backend/store"
)

// explainStore turns the failure of a first contact into one that names the way out.
func explainStore(url string, err error) error {
	switch {
	case errors.Is(err, store.ErrNoBucket):
		return fmt.Errorf("store %s: there is no such bucket or folder; make it first (%w)", url, err)
	case errors.Is(err, store.ErrDenied) && strings.HasPrefix(url, "file://"):
		return fmt.Errorf("store %s: this user may not read and write all of the folder (%w)", url, err)
	case errors.Is(err, store.ErrDenied):
		return fmt.Errorf("store %s: access denied; credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "+
			"the shared credentials file, or instance metadata (%w)", url, err)
	case errors.Is(err, store.ErrUnsuitable):
		return fmt.Errorf("store %s cannot keep disks safely: %w", url, err)
	case store.Retryable(err):
		return fmt.Errorf("store %s does not answer; check the endpoint (%w)", url, err)
	}
	return fmt.Errorf("store %s: %w", url, err)
}
