//! The stores of one backend, together.

use std::sync::Arc;

use crate::audit::AuditStore;
use crate::cluster::Cluster;
use crate::config::ConfigStore;
use crate::dlq::DlqStore;
use crate::jobs::JobStore;
use crate::locks::LeaseStore;
use crate::pointers::PointerStore;
#[cfg(feature = "server")]
use crate::workflow::WorkflowStore;

/// Every store of one backend. Cheap to clone: all clones are the same stores.
#[derive(Debug, Clone)]
pub struct Stores {
    /// Jobs.
    pub jobs: Arc<dyn JobStore>,
    /// What pointers point to.
    pub payloads: Arc<dyn PointerStore>,
    /// Dead letters.
    pub dlq: Arc<dyn DlqStore>,
    /// Leases.
    pub leases: Arc<dyn LeaseStore>,
    /// The replicas.
    pub cluster: Arc<dyn Cluster>,
    /// Configuration documents.
    pub config: Arc<dyn ConfigStore>,
    /// The audit log.
    pub audit: Arc<dyn AuditStore>,
    /// Workflows and their runs.
    #[cfg(feature = "server")]
    pub workflows: Arc<dyn WorkflowStore>,
}
