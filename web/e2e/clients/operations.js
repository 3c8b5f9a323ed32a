// The operations of realtime.test.mjs. Relay's compiler reads them here, and wants their names to begin with the file's.
const graphql = String.raw;

export const thread = graphql`
  subscription operationsThreadSubscription($id: ID!, $known: Int, $since: Cursor) {
    threadChanged(id: $id, knownVersion: $known, since: $since) {
      kind recordId version fields cursor
      thread { __typename id version subject }
    }
  }
`;

export const messages = graphql`
  subscription operationsMessagesSubscription($where: MessageWhereInput, $since: Cursor) {
    messagesChanged(where: $where, since: $since) {
      kind recordId version fields cursor
      message { __typename id version body }
    }
  }
`;

export const records = graphql`
  subscription operationsRecordsSubscription($refs: [RecordRef!]!, $since: Cursor) {
    recordsChanged(refs: $refs, since: $since) {
      kind recordId version fields cursor
      record { __typename id version ... on Thread { subject } ... on Message { body } }
    }
  }
`;

export const read = graphql`
  query operationsReadQuery($id: ID!) {
    thread(id: $id) { __typename id version subject }
  }
`;

export const rename = graphql`
  mutation operationsRenameMutation($id: ID!, $version: Int!, $input: UpdateThreadInput!, $onConflict: OnConflict) {
    updateThread(id: $id, expectedVersion: $version, onConflict: $onConflict, input: $input) { __typename id version subject }
  }
`;
