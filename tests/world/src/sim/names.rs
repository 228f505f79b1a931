//! The words of a run: what is called, and what goes wrong with it. Which faults a call has is the declared list
//! that every long run must have shown.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum $name { $($variant,)+ }

        impl $name {
            /// All of them, in the order of their declaration.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// As in stories and tables.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

words! {
    /// A call through a port, or a step of the world that stands in for one.
    Call {
        Policy = "table.policy",
        Pairings = "table.pairings",
        WritePairings = "table.write_pairings",
        NodesWithUpdateDue = "table.nodes_with_update_due",
        ActiveNodes = "table.active_nodes",
        EveryNode = "table.every_node",
        Instances = "table.instances",
        ReleaseUnpaired = "table.release_unpaired",
        ReleaseOrphan = "table.release_orphan",
        Hold = "table.hold",
        NoteUnknown = "table.note_unknown",
        MarkTerminated = "table.mark_terminated",
        Usage = "table.usage",
        PutUsage = "table.put_usage",
        Capacity = "table.capacity",
        PutCapacity = "table.put_capacity",
        Budget = "table.budget",
        PutBudget = "table.put_budget",
        Gang = "table.gang",
        PutGang = "table.put_gang",
        Sweep = "table.sweep",
        PutSweep = "table.put_sweep",
        SweepReport = "table.sweep_report",
        PutSweepReport = "table.put_sweep_report",
        Request = "table.request",
        PutRequest = "table.put_request",
        Attempt = "table.attempt",
        PutAttempt = "table.put_attempt",
        AnswerAttempt = "table.answer_attempt",
        Heartbeat = "table.heartbeat",
        PutHeartbeat = "table.put_heartbeat",
        NodeStates = "table.node_states",
        PutNodeStates = "table.put_node_states",
        SendResume = "queues.send_resume",
        SendSuspend = "queues.send_suspend",
        SendReport = "queues.send_report",
        SendEnvelope = "queues.send_envelope",
        SigningKey = "keys.signing_key",
        SendCommand = "commands.send",
        Outcome = "outcomes.outcome",
        Launch = "ec2.launch",
        Find = "ec2.find",
        Terminate = "ec2.terminate",
        Impaired = "ec2.impaired",
        Console = "ec2.console",
        Tag = "ec2.tag",
        Now = "clock.now_ms",
        ResumeQueue = "resume queue",
        SuspendQueue = "suspend queue",
        ReportsQueue = "reports queue",
        UpdatesQueue = "updates queue",
        NoticesQueue = "notices queue",
        EventBridge = "EventBridge",
        Stream = "stream",
        Command = "run command",
        ResumeProgram = "ResumeProgram",
        Agent = "agent",
        Apply = "apply",
        Boot = "boot",
    }
}

words! {
    /// What goes wrong.
    Trouble {
        Refused = "refused",
        LostAnswer = "answer lost",
        Repeated = "repeated by the SDK",
        CrashBefore = "crash before",
        CrashAfter = "crash after",
        Slow = "slow",
        TimedOut = "timed out, done later",
        Throttled = "throttled",
        ThrottledInside = "throttled inside a 200",
        Partial = "partial",
        Incomplete = "late or missing",
        Lagging = "lagging",
        Unknown = "unknown",
        Skewed = "skewed",
        Duplicated = "duplicated",
        Delayed = "delayed and reordered",
        Lost = "lost",
        Reordered = "reordered",
        Away = "away",
        Never = "never joins",
        Fails = "reports failure",
    }
}

/// A service that may be away as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Table,
    Queues,
    Ec2,
    Ssm,
}

impl Service {
    pub(crate) const ALL: &'static [Self] = &[Self::Table, Self::Queues, Self::Ec2, Self::Ssm];
}

impl Call {
    /// Who answers it; none is a step that no service makes.
    pub(crate) fn service(self) -> Option<Service> {
        let (service, _) = self.as_str().split_once('.')?;
        match service {
            "table" => Some(Service::Table),
            "queues" => Some(Service::Queues),
            "ec2" => Some(Service::Ec2),
            "clock" => None,
            _ => Some(Service::Ssm),
        }
    }

    /// How many times as likely as another a fault is at this call: so that what happens seldom is struck too.
    pub(crate) fn weight(self) -> f64 {
        match self {
            Self::ReleaseUnpaired | Self::EventBridge => 8.0,
            Self::NoteUnknown | Self::Hold | Self::ReleaseOrphan => 40.0,
            // Twenty calls in ten thousand seeds.
            Self::Console => 200.0,
            Self::Boot | Self::Now | Self::NodesWithUpdateDue | Self::Launch => 4.0,
            _ => 1.0,
        }
    }
}

impl Call {
    /// Reading and writing a record of a kind that many write.
    pub(crate) fn of_shared(kind: &str) -> (Self, Self) {
        match kind {
            "usage" => (Self::Usage, Self::PutUsage),
            "capacity" => (Self::Capacity, Self::PutCapacity),
            "budget" => (Self::Budget, Self::PutBudget),
            "gang" => (Self::Gang, Self::PutGang),
            "sweep" => (Self::Sweep, Self::PutSweep),
            "sweep-report" => (Self::SweepReport, Self::PutSweepReport),
            other => unreachable!("no record of kind {other}"),
        }
    }
}

impl Trouble {
    /// Troubles of a call, the declared list.
    #[expect(clippy::too_many_lines, reason = "one table")]
    pub(crate) fn of(call: Call) -> &'static [Self] {
        use Call as C;
        use Trouble as T;
        const READ: &[Trouble] = &[T::Refused, T::Slow, T::CrashBefore, T::CrashAfter];
        const WRITE: &[Trouble] = &[
            T::Refused,
            T::LostAnswer,
            T::Repeated,
            T::Slow,
            T::CrashBefore,
            T::CrashAfter,
        ];
        match call {
            C::Policy
            | C::Pairings
            | C::Instances
            | C::Usage
            | C::Capacity
            | C::Budget
            | C::Gang
            | C::Sweep
            | C::SweepReport
            | C::EveryNode
            | C::NodeStates
            | C::Impaired
            | C::Request
            | C::Attempt
            | C::Heartbeat
            | C::SigningKey => READ,
            C::WritePairings
            | C::ReleaseUnpaired
            | C::MarkTerminated
            | C::NoteUnknown
            | C::ReleaseOrphan
            | C::Hold
            | C::PutSweep
            | C::PutSweepReport
            | C::PutUsage
            | C::PutCapacity
            | C::PutBudget
            | C::PutGang
            | C::PutRequest
            | C::PutAttempt
            | C::AnswerAttempt
            | C::PutHeartbeat
            | C::PutNodeStates
            | C::SendResume
            | C::SendSuspend
            | C::SendReport
            | C::SendEnvelope
            | C::SendCommand
            | C::Tag => WRITE,
            C::NodesWithUpdateDue | C::ActiveNodes => &[
                T::Refused,
                T::Slow,
                T::CrashBefore,
                T::CrashAfter,
                T::Lagging,
            ],
            // Few instances are so late that a sweep asks.
            C::Console => &[T::Refused],
            C::Outcome => &[T::Refused, T::Slow, T::CrashBefore, T::Unknown],
            C::Launch => &[
                T::Refused,
                T::Throttled,
                T::LostAnswer,
                T::Repeated,
                T::Slow,
                T::TimedOut,
                T::ThrottledInside,
                T::Partial,
                T::CrashBefore,
                T::CrashAfter,
            ],
            C::Find => &[
                T::Refused,
                T::Throttled,
                T::Slow,
                T::CrashBefore,
                T::CrashAfter,
                T::Incomplete,
            ],
            C::Terminate => &[
                T::Refused,
                T::Throttled,
                T::LostAnswer,
                T::Repeated,
                T::Slow,
                T::Partial,
                T::CrashBefore,
                T::CrashAfter,
            ],
            C::Now => &[T::Skewed],
            C::ResumeQueue
            | C::SuspendQueue
            | C::ReportsQueue
            | C::UpdatesQueue
            | C::NoticesQueue => &[T::Duplicated, T::Delayed],
            C::EventBridge => &[T::Lost],
            C::Stream => &[T::Lost, T::Reordered, T::Duplicated, T::Slow],
            C::Command => &[T::Lost, T::Slow],
            C::ResumeProgram => &[T::Repeated],
            C::Agent => &[T::Away],
            C::Apply => &[T::CrashAfter],
            C::Boot => &[T::Slow, T::Never, T::Fails],
        }
    }
}
