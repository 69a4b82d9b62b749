# Ten numbers about a patient; how far does diabetes progress in a year? A regression: one number, from 25 to 346.
# Only the model: Headrace builds it in a sandbox, where `torch`, `nn`, `F`, `Accuracy` and `Loss` are there already.
class Progression(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(10),  # age, pressure and six blood values have very different units
            nn.Linear(10, 16),
            nn.ReLU(),
            nn.Linear(16, 1),
        )

    def forward(self, x):
        return 150 + 75 * self.layers(x)  # about the mean and the deviation of what is to be told

    def loss_fn(self):
        return nn.MSELoss()

    def optimizer(self):
        return torch.optim.Adam(model.parameters(), lr=0.01)

    def metrics(self):
        return {"loss": Loss(self.loss_fn()), "mean_absolute_error": Loss(nn.L1Loss())}


model = Progression()
